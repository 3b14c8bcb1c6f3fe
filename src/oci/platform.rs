//! The platform an image runs on, in Go's words for it (image-spec, image-index.md).

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Platform {
    pub os: String,
    pub arch: String,
    /// Of the processor: `v7` of arm, `v8` of arm64.
    pub variant: Option<String>,
}

impl Platform {
    /// This host's.
    pub fn host() -> Self {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self { os: std::env::consts::OS.to_owned(), arch: arch.to_owned(), variant: None }
    }

    /// Whether an image for `other` is one for this platform. Where no variant is asked for, any will do.
    pub fn takes(&self, other: &Self) -> bool {
        (&self.os, &self.arch) == (&other.os, &other.arch)
            && (self.variant.is_none() || self.full_variant() == other.full_variant())
    }

    /// With what images leave out: arm is v7 and arm64 is v8 unless they say otherwise.
    fn full_variant(&self) -> Option<&str> {
        match (self.arch.as_str(), self.variant.as_deref()) {
            ("arm", None) => Some("v7"),
            ("arm64", None) => Some("v8"),
            (_, variant) => variant,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.arch)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// Why a text is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no platform: want os/arch or os/arch/variant, such as linux/arm64 or linux/arm/v7")]
pub struct InvalidPlatform(String);

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let word = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(os), Some(arch), variant, None) if [os, arch].into_iter().chain(variant).all(word) => {
                Ok(Self { os: os.into(), arch: arch.into(), variant: variant.map(str::to_owned) })
            }
            _ => Err(InvalidPlatform(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_parses_back() {
        let host = Platform::host();
        assert_eq!(host.to_string().parse(), Ok(host));
        assert_eq!(platform("linux/arm/v7").to_string(), "linux/arm/v7");
        for text in ["", "linux", "linux/", "/amd64", "linux/arm64/", "linux/arm/v7/x", "Linux/amd64"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn a_variant_counts_where_it_is_asked_for() {
        for (wanted, image, takes) in [
            ("linux/arm", "linux/arm/v5", true),
            ("linux/arm/v7", "linux/arm", true),
            ("linux/arm/v6", "linux/arm", false),
            ("linux/arm/v6", "linux/arm/v7", false),
            ("linux/arm64/v8", "linux/arm64", true),
            ("linux/amd64/v3", "linux/amd64", false),
            ("linux/amd64", "linux/arm64", false),
        ] {
            assert_eq!(platform(wanted).takes(&platform(image)), takes, "{wanted} {image}");
        }
    }
}
