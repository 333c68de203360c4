use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::ReportError;

/// Writes a file under a temporary name, then renames it, so that no half of it is ever seen.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // Temporary files are private by default; a report is as public as the user's other files.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let written = builder.tempfile_in(folder).and_then(|mut file| {
        file.write_all(bytes)?;
        file.persist(path).map_err(|refused| refused.error)
    });
    written.map(drop).map_err(ReportError::write(path))
}

/// Bytes of a PNG's signature and first chunk.
pub(crate) const PNG_HEADER: usize = 33;

/// The chunk after these in every PNG of this crate: text, `Software` being `convzoo`, with its checksum.
pub(crate) const PNG_MARK: &[u8; 28] = b"\0\0\0\x10tEXtSoftware\0convzoo\xf8\xaa\x82\xa2";

/// What says so in a page, and at the end of a drawing.
pub(crate) const PAGE_MARK: &str = r#"<meta name="generator" content="convzoo">"#;
const SVG_MARK: &str = "<!-- convzoo -->\n";

/// What a graph in Graphviz's language begins with.
const DOT_MARK: &str = "// convzoo\n";

/// What an object of JSON begins with.
const JSON_MARK: &str = r#"{"generator":"convzoo","#;

/// Whether this crate wrote the PNG, SVG, HTML, Graphviz or JSON file: only such a one may be replaced unasked.
///
/// # Errors
///
/// When the file cannot be read.
pub fn is_report(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut head = Vec::new();
    Read::by_ref(&mut file).take(1 << 16).read_to_end(&mut head)?;
    let end = (SVG_MARK.len() as i64).min(file.metadata()?.len() as i64);
    file.seek(SeekFrom::End(-end))?;
    let mut tail = Vec::new();
    file.take(SVG_MARK.len() as u64).read_to_end(&mut tail)?;
    let page = head.starts_with(b"<!DOCTYPE html>");
    Ok(head.get(PNG_HEADER..).is_some_and(|rest| rest.starts_with(PNG_MARK))
        || page && head.windows(PAGE_MARK.len()).any(|part| part == PAGE_MARK.as_bytes())
        || head.starts_with(b"<svg") && tail == SVG_MARK.as_bytes()
        || head.starts_with(DOT_MARK.as_bytes())
        || head.starts_with(JSON_MARK.as_bytes()))
}

/// Writes a drawing, as [`Chart::svg`](crate::Chart::svg) gives it, as an SVG file, under a temporary name first.
///
/// # Errors
///
/// When the file cannot be written.
pub fn write_svg(svg: &str, path: &Path) -> Result<(), ReportError> {
    write(path, format!("{}\n{SVG_MARK}", svg.trim_end()).as_bytes())
}

/// Writes a graph in Graphviz's language, under a temporary name first.
///
/// # Errors
///
/// When the file cannot be written.
pub fn write_dot(dot: &str, path: &Path) -> Result<(), ReportError> {
    write(path, format!("{DOT_MARK}{dot}").as_bytes())
}

/// Writes an object as JSON, with a first entry that says who wrote it, under a temporary name first. `json` is the object
/// without spaces.
///
/// # Errors
///
/// When the file cannot be written.
pub fn write_json(json: &str, path: &Path) -> Result<(), ReportError> {
    write(path, format!("{JSON_MARK}{}\n", json.trim_start_matches('{')).as_bytes())
}

/// Text that an XML or HTML file may hold: control characters but line breaks and tabs, which neither may, are spelled
/// out as Rust would.
pub(crate) fn printable(text: String) -> String {
    let control = |character: char| character.is_control() && !matches!(character, '\n' | '\t' | '\r');
    if !text.contains(control) {
        return text;
    }
    let spell = |character: char| match control(character) {
        true => character.escape_default().collect(),
        false => String::from(character),
    };
    text.chars().map(spell).collect()
}
