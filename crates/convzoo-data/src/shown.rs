//! Names from outside as text that a terminal or a page takes.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;

/// A path as text: what is not Unicode in it is written as `\xff`, so that paths that differ read differently.
pub fn shown(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Text without control characters, each written as Rust would (`\u{1b}`): raw, they would move a terminal's cursor,
/// forge lines or turn the direction of writing, and no XML file may hold them.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match is_control(character) {
            true => escaped.extend(character.escape_default()),
            false => escaped.push(character),
        }
    }
    Cow::Owned(escaped)
}

/// Control characters, and those that embed, override or isolate a direction of writing.
fn is_control(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_spelled_out_and_the_rest_stays() {
        assert_eq!(escaped("Füchse 狐.png"), "Füchse 狐.png");
        assert_eq!(escaped("a\x1b[31m\nb\u{202e}c\u{9b}"), r"a\u{1b}[31m\nb\u{202e}c\u{9b}");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_unicode_can_be_told_apart() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let name = |bytes: &[u8]| shown(Path::new(OsStr::from_bytes(bytes)));
        assert_eq!(name(b"gr\xfcn/1.png"), r"gr\xfcn/1.png");
        assert_ne!(name(b"\xfe"), name(b"\xff"));
        assert_eq!(name("grün".as_bytes()), "grün");
    }
}
