//! Tests that a machine cannot run say so in a form which `tests/run` finds, and which only `ALLOWED_SKIPS` excuses.

use std::io::Write;

/// Why not, unless we are root and all of these programs are here.
pub fn missing(programs: &[&str]) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root".into());
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let found = |program: &&&str| {
        path.split(':')
            .chain(["/usr/sbin", "/sbin"])
            .any(|dir| std::path::Path::new(dir).join(program).exists())
    };
    programs.iter().find(|program| !found(program)).map(|program| format!("no {program}"))
}

/// Straight to stderr: libtest keeps to itself what a passing test prints.
pub fn report(test: &str, reason: &str) {
    let name = test.trim_end_matches("::here").replace("::{{closure}}", "");
    let _ = writeln!(std::io::stderr(), "\nSKIPPED {name}: {reason}");
}

/// Ends the test here unless root runs it and the programs are installed.
#[macro_export]
macro_rules! needs {
    ($($program:expr),*) => {
        if let Some(reason) = $crate::support::skip::missing(&[$($program),*]) {
            fn here() {}
            return $crate::support::skip::report(std::any::type_name_of_val(&here), &reason);
        }
    };
}
