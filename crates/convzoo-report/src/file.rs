use std::io::Write;
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
