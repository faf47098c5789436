//! From cells to a judgement.
