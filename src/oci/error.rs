//! Errors as clients read them (distribution-spec, "Error Codes").

use serde::Serialize;

/// The specification's codes that a pull can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    BlobUnknown,
    DigestInvalid,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    /// Not of OCI's list, but what registries have always answered to a bad `n`.
    PaginationNumberInvalid,
    SizeInvalid,
    TagInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    RangeInvalid,
    Unavailable,
    Unknown,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::TagInvalid => "TAG_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::RangeInvalid => "RANGE_INVALID",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// `{"errors":[{"code","message","detail"}]}`
#[derive(Serialize)]
pub struct ErrorBody<'a> {
    errors: [Entry<'a>; 1],
}

#[derive(Serialize)]
struct Entry<'a> {
    code: &'static str,
    message: &'a str,
    detail: serde_json::Value,
}

impl<'a> ErrorBody<'a> {
    /// `detail` is for programs: what was asked for, as a JSON value, or null.
    pub fn new(code: Code, message: &'a str, detail: serde_json::Value) -> Self {
        Self { errors: [Entry { code: code.as_str(), message, detail }] }
    }

    pub fn to_json(&self) -> Vec<u8> {
        // Strings and values always serialize.
        serde_json::to_vec(self).unwrap_or_default()
    }
}
