//! What a key's value can be: how it is read, and the words for what is wanted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::settings::{Abandoned, Age, LogFormat, Prefetch, PruneBy, Scheme, Share, Unlisted};
use super::value::Value;
use super::{NamePattern, RegistryPattern, units};
use crate::oci::Registry;

/// A type of values.
pub struct Kind<T> {
    pub want: &'static str,
    pub read: fn(&Value) -> Option<T>,
    pub shown: Shown,
}

/// How much of a value a message or `config show` may tell.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    All,
    /// All but a user and password before an `@`, and a query.
    WithoutUserinfo,
    Nothing,
}

impl<T> Kind<T> {
    pub const fn new(want: &'static str, read: fn(&Value) -> Option<T>) -> Self {
        Self { want, read, shown: Shown::All }
    }

    pub const fn shown(self, shown: Shown) -> Self {
        Self { shown, ..self }
    }
}

impl Shown {
    /// What may be shown in place of `value`.
    pub fn of(self, value: &Value) -> Value {
        match (self, value) {
            (Self::Nothing, Value::Text(text)) if !text.is_empty() => "(secret)".into(),
            (Self::WithoutUserinfo, Value::Text(text)) => without_userinfo(text).as_str().into(),
            _ => value.clone(),
        }
    }
}

fn without_userinfo(text: &str) -> String {
    let (before, after) = text.rsplit_once('@').map_or(("", text), |(b, a)| (b, a));
    let scheme = before.split_once("://").map(|(scheme, _)| format!("{scheme}://"));
    let user = if before.is_empty() { "" } else { "(secret)@" };
    let (place, query) = after.split_once('?').map_or((after, ""), |(p, _)| (p, "?(secret)"));
    format!("{}{user}{place}{query}", scheme.unwrap_or_default())
}

pub const BOOL: Kind<bool> = Kind::new("true or false", |value| match value {
    Value::Bool(bool) => Some(*bool),
    _ => None,
});

pub const TEXT: Kind<String> = Kind::new("a string", |value| value.text().map(str::to_owned));

pub const SECRET: Kind<String> = Kind::new("a string without control characters", |value| {
    let plain = |text: &&str| !text.contains(|c: char| c.is_control());
    value.text().filter(plain).map(str::to_owned)
})
.shown(Shown::Nothing);

/// An account of this host.
pub const ACCOUNT: Kind<String> = Kind::new("the name of an account", |value| {
    value.text().filter(|name| !name.is_empty()).map(str::to_owned)
});

pub const FOLDER: Kind<PathBuf> = Kind::new("an absolute path", |value| absolute(value.text()?));

/// Empty where there is none.
pub const FILE: Kind<Option<PathBuf>> =
    Kind::new("an absolute path, or \"\"", |value| match value.text()? {
        "" => Some(None),
        text => absolute(text).map(Some),
    });

pub fn absolute(text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    (path.is_absolute() && !text.contains('\0')).then(|| path.to_owned())
}

/// The name of an environment variable or of a systemd credential.
pub const NAME: Kind<Option<String>> = Kind::new("a name without / and =", |value| match value.text()? {
    "" => Some(None),
    name if name.contains(['/', '=', '\0']) => None,
    name => Some(Some(name.to_owned())),
});

pub const PULL_TIMEOUT: Kind<Duration> =
    Kind::new("milliseconds, or a duration such as \"30s\"; more than 0", |value| {
        let duration = match value {
            Value::Integer(ms) => units::duration(&format!("{ms}ms"))?,
            _ => units::duration(value.text()?)?,
        };
        (!duration.is_zero()).then_some(duration)
    });

pub const DURATION: Kind<Duration> =
    Kind::new("a duration such as \"300ms\", \"30s\", \"10m\", \"1h\", \"7d\", or 0", duration);

fn duration(value: &Value) -> Option<Duration> {
    match value {
        Value::Integer(0) => Some(Duration::ZERO),
        _ => units::duration(value.text()?),
    }
}

/// Empty where there is none.
pub const PERIOD: Kind<Option<Duration>> =
    Kind::new("a duration above 0, such as \"1h\" or \"7d\", or \"\"", |value| match value.text()? {
        "" => Some(None),
        text => units::duration(text).filter(|duration| !duration.is_zero()).map(Some),
    });

pub const INTERVAL: Kind<Duration> = Kind::new("a duration above 0, such as \"10m\" or \"1h\"", |value| {
    units::duration(value.text()?).filter(|duration| !duration.is_zero())
});

pub const AGE: Kind<Age> = Kind::new(
    "a duration such as \"30s\", \"10m\", \"1h\", \"7d\", or 0, or \"forever\"",
    |value| match value.text() {
        Some("forever") => Some(Age::Forever),
        _ => duration(value).map(Age::For),
    },
);

pub const ABANDONED: Kind<Abandoned> =
    Kind::new("\"finish\", or a duration such as \"1m\"", |value| match value.text() {
        Some("finish") => Some(Abandoned::Finish),
        _ => duration(value).map(Abandoned::PauseAfter),
    });

pub const SIZE: Kind<u64> =
    Kind::new("bytes, or a size such as \"500MB\" or \"50GiB\"", |value| match value {
        Value::Integer(bytes) => (*bytes).try_into().ok(),
        _ => units::size(value.text()?),
    });

pub const SHARE: Kind<Share> =
    Kind::new("a size such as \"50GiB\" or \"15%\", or \"\"", |value| match value.text()? {
        "" => Some(Share::None),
        text => units::percent(text).map(Share::Percent).or_else(|| units::size(text).map(Share::Bytes)),
    });

pub const COUNT: Kind<u64> = Kind::new("a whole number, 0 or more", |value| value.integer()?.try_into().ok());

pub const CONNECTIONS: Kind<usize> = Kind::new("a number, 1 to 1000", |value| {
    usize::try_from(value.integer()?).ok().filter(|number| (1..=1000).contains(number))
});

pub const LOG_LEVEL: Kind<LevelFilter> = Kind::new("\"debug\", \"info\", \"warn\" or \"error\"", |value| {
    Some(match value.text()? {
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warn" => LevelFilter::WARN,
        "error" => LevelFilter::ERROR,
        _ => return None,
    })
});

pub const LOG_FORMAT: Kind<LogFormat> =
    Kind::new("\"auto\", \"text\" or \"json\"", |value| match value.text()? {
        "auto" => Some(LogFormat::Auto),
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    });

pub const PREFETCH: Kind<Prefetch> =
    Kind::new("\"none\", \"image\" or \"platform\"", |value| match value.text()? {
        "none" => Some(Prefetch::None),
        "image" => Some(Prefetch::Image),
        "platform" => Some(Prefetch::Platform),
        _ => None,
    });

pub const SCHEME: Kind<Scheme> = Kind::new("\"https\" or \"http\"", |value| match value.text()? {
    "https" => Some(Scheme::Https),
    "http" => Some(Scheme::Http),
    _ => None,
});

/// An operating system or architecture in Go's words.
pub const PLATFORM: Kind<String> = Kind::new("a name such as linux, amd64 or arm64", |value| {
    let word =
        |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    value.text().filter(word).map(str::to_owned)
});

/// Empty where there is none.
pub const REGISTRY: Kind<Option<Registry>> =
    Kind::new("a registry such as \"docker.io\", or \"\"", |value| match value.text()? {
        "" => Some(None),
        text => text.parse().ok().map(Some),
    });

pub const REGISTRY_PATTERN: Kind<RegistryPattern> = Kind::new(
    "a registry as host, host:port, address:port or [IPv6]:port, or a host with * for whole labels",
    |value| value.text()?.parse().ok(),
);

pub const PRUNE_TYPE: Kind<PruneBy> =
    Kind::new("\"accessed\" or \"created\"", |value| match value.text()? {
        "accessed" => Some(PruneBy::Accessed),
        "created" => Some(PruneBy::Created),
        _ => None,
    });

pub const NAME_PATTERN: Kind<NamePattern> = Kind::new(
    "a registry (or **), / and a repository, with * for a part of a name and ** for any path, such as \"quay.io/team/**\"",
    |value| value.text()?.parse().ok(),
);

pub const UNLISTED: Kind<Unlisted> =
    Kind::new("\"public\", \"allow\" or \"deny\"", |value| match value.text()? {
        "public" => Some(Unlisted::Public),
        "allow" => Some(Unlisted::Allow),
        "deny" => Some(Unlisted::Deny),
        _ => None,
    });

/// A glob over `registry/repository`.
pub const GLOB: Kind<String> =
    Kind::new("a pattern such as \"docker.io/library/*\" or \"quay.io/**\"", |value| {
        let valid = |text: &&str| !text.is_empty() && globset::Glob::new(text).is_ok();
        value.text().filter(valid).map(str::to_owned)
    });

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(kind: Kind<T>, text: &str) -> Option<T> {
        (kind.read)(&text.into())
    }

    #[test]
    fn what_a_url_may_show() {
        for (text, shown) in [
            ("http://proxy:3128", "http://proxy:3128"),
            ("http://u:p@proxy:3128", "http://(secret)@proxy:3128"),
            ("http://u:p@q?x@proxy", "http://(secret)@proxy"),
            ("u:p@proxy", "(secret)@proxy"),
            ("http://h/?t=s", "http://h/?(secret)"),
        ] {
            assert_eq!(without_userinfo(text), shown);
        }
    }

    #[test]
    fn shares() {
        assert_eq!(read(SHARE, "15%"), Some(Share::Percent(15)));
        assert_eq!(read(SHARE, "1kB"), Some(Share::Bytes(1000)));
        assert_eq!(read(SHARE, "x"), None);
    }

    #[test]
    fn timeouts_are_milliseconds_or_durations() {
        let minute = Some(Duration::from_secs(60));
        assert_eq!((PULL_TIMEOUT.read)(&60_000.into()), minute);
        assert_eq!(read(PULL_TIMEOUT, "1m"), minute);
        for value in [Value::from(0), (-1).into(), "0".into(), "forever".into(), true.into()] {
            assert_eq!((PULL_TIMEOUT.read)(&value), None);
        }
    }
}
