//! curl, for whatever it can speak that our own client cannot.

use std::path::Path;

use tempfile::TempDir;

use super::process::{limited, run};

/// Between what is written of one answer and of the next.
const END: &str = "\n=====\n";

pub struct Curl {
    dir: TempDir,
    options: Vec<String>,
}

#[derive(Debug)]
pub struct Got {
    /// curl's own, 0 when all went well.
    pub exit: i32,
    pub status: u16,
    /// "1.1", "2"
    pub version: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub complaint: String,
}

impl Curl {
    pub fn with(options: &[&str]) -> Self {
        let options = options.iter().map(ToString::to_string).collect();
        Self { dir: tempfile::tempdir().unwrap(), options }
    }

    pub fn get(&self, url: &str, options: &[&str]) -> Got {
        self.all(&[url], options).remove(0)
    }

    /// One after the other, over as few connections as it can.
    pub fn all(&self, urls: &[&str], options: &[&str]) -> Vec<Got> {
        let file = |kind: &str, n: usize| self.dir.path().join(format!("{kind}-{n}"));
        let mut command = limited("curl");
        command.args(["--globoff", "--silent", "--show-error"]);
        command.args([
            "--write-out",
            &format!("%{{exitcode}} %{{http_code}} %{{http_version}} %{{header_json}}{END}"),
        ]);
        for (n, url) in urls.iter().enumerate() {
            command.arg("--output").arg(file("body", n)).arg(url);
        }
        command.args(&self.options).args(options);
        let output = run(command);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let answer = |(n, text): (usize, &str)| {
            let mut words = text.splitn(4, ' ');
            let mut word = || words.next().unwrap_or_default().to_owned();
            Got {
                exit: word().parse().unwrap(),
                status: word().parse().unwrap(),
                version: word(),
                headers: headers(&word()),
                body: read(&file("body", n)),
                complaint: complaint.clone(),
            }
        };
        let answers: Vec<_> = said.split_terminator(END).enumerate().map(answer).collect();
        assert_eq!(answers.len(), urls.len(), "{complaint}");
        answers
    }
}

fn read(path: &Path) -> Vec<u8> {
    let body = std::fs::read(path).unwrap_or_default();
    let _ = std::fs::remove_file(path);
    body
}

fn headers(json: &str) -> Vec<(String, String)> {
    let json: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let pairs = json.as_object().into_iter().flatten();
    pairs.map(|(name, values)| (name.clone(), values[0].as_str().unwrap_or_default().to_owned())).collect()
}

impl Got {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn is(self, status: u16, version: &str) -> Self {
        assert_eq!(self.exit, 0, "{}", self.complaint);
        assert_eq!((self.status, &*self.version), (status, version), "{:?}", self.headers);
        self
    }
}
