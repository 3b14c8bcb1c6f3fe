//! The daemon: builds the parts, starts them, stops them.

use crate::config::Settings;

/// Why the daemon ended other than as told.
#[derive(Debug, thiserror::Error)]
#[error("serving is not built yet")]
pub struct ServeError;

impl ServeError {
    /// What the process exits with.
    pub fn exit_code(&self) -> u8 {
        70
    }
}

/// Runs until told to stop. `banner` goes to the standard output.
pub fn serve(_settings: Settings, banner: String) -> Result<(), ServeError> {
    print!("{banner}");
    Err(ServeError)
}
