//! A segment of the journal from anywhere: as it is, and as records that their checksums vouch for.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::journal::replay(bytes);
    if let Some(framed) = fuzz::journal::framed(bytes) {
        fuzz::journal::replay(&framed);
    }
});
