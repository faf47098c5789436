//! A terminal taken over for a while, and given back as it was, however the command ends.

use crossterm::{
    cursor::{Hide, MoveTo, Show},
    queue,
    style::Print,
    terminal::{
        self, BeginSynchronizedUpdate, Clear, ClearType, DisableLineWrap, EnableLineWrap, EndSynchronizedUpdate,
        EnterAlternateScreen, LeaveAlternateScreen,
    },
};
use std::io::{self, Write};

/// Size of a terminal that does not say its size, cells.
const SIZE_DEFAULT: (u16, u16) = (80, 24);

/// A screen of its own; dropping it brings the old one back.
pub(super) struct Screen<W: Write> {
    out: W,
}

impl<W: Write> Screen<W> {
    /// Takes the terminal over.
    pub(super) fn enter(out: W) -> io::Result<Self> {
        let mut screen = Self { out };
        queue!(screen.out, EnterAlternateScreen, Hide, DisableLineWrap)?;
        screen.out.flush()?;
        Ok(screen)
    }

    /// Shows lines in place of what stood there.
    pub(super) fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        queue!(self.out, BeginSynchronizedUpdate)?;
        let last = lines.len().saturating_sub(1);
        for (row, line) in lines.iter().enumerate() {
            // Cleared before it is written: behind a line as wide as the terminal the cursor stands on its last letter.
            let rest = if row == last {
                ClearType::FromCursorDown
            } else {
                ClearType::CurrentLine
            };
            queue!(
                self.out,
                MoveTo(0, u16::try_from(row).unwrap_or(u16::MAX)),
                Clear(rest),
                Print(line)
            )?;
        }
        queue!(self.out, EndSynchronizedUpdate)?;
        self.out.flush()
    }
}

impl<W: Write> Drop for Screen<W> {
    fn drop(&mut self) {
        // A terminal that went away needs nothing back.
        let _ = queue!(self.out, EnableLineWrap, Show, LeaveAlternateScreen);
        let _ = self.out.flush();
    }
}

/// Columns and rows of the terminal now.
pub(super) fn size() -> (usize, usize) {
    let (columns, rows) = terminal::size().unwrap_or(SIZE_DEFAULT);
    // Some say 0 when they do not know.
    let or = |known: u16, default: u16| usize::from(if known == 0 { default } else { known });
    (or(columns, SIZE_DEFAULT.0), or(rows, SIZE_DEFAULT.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_switched_on_is_switched_off() {
        let mut out = Vec::new();
        let mut screen = Screen::enter(&mut out).unwrap();
        screen.draw(&["one".to_owned(), "two".to_owned()]).unwrap();
        drop(screen);
        let text = String::from_utf8(out).unwrap();
        for (on, off) in [
            ("\u{1b}[?1049h", "\u{1b}[?1049l"),
            ("\u{1b}[?25l", "\u{1b}[?25h"),
            ("\u{1b}[?7l", "\u{1b}[?7h"),
        ] {
            let (on, off) = (text.find(on).unwrap(), text.rfind(off).unwrap());
            assert!(
                on < text.find("one").unwrap() && text.find("two").unwrap() < off,
                "{text:?}"
            );
        }
    }
}
