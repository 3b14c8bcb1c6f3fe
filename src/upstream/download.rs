//! A blob on its way: a body that goes on where the wire broke.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderValue, Method};
use tokio::time::{Instant, sleep_until, timeout};
use url::Url;

use super::error::UpstreamError;
use super::retry::{Attempts, Failure};
use super::session::Session;
use super::transport::{Answer, Ask};
use crate::oci::Repository;
use crate::request_id::RequestId;

/// What may be thrown away of the answers of a registry that ignores ranges: so much of a part, and twice the
/// blob when all of it is wanted, since there is no other way to its end.
const MAX_DISCARDED: u64 = 1 << 20;

/// Before the first resume in a row that brought nothing; twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(100);

/// Since the wire broke, without a byte: then it is given up.
const FRUITLESS: Duration = Duration::from_secs(20);

/// For one resume with all its redirects.
const REOPENING: Duration = Duration::from_secs(20);

/// A body under way. Cuts, stalls and resets are mended by asking for the rest.
pub struct Download {
    session: Arc<Session>,
    repository: Repository,
    url: Url,
    start: u64,
    /// The next byte to be handed out.
    position: u64,
    /// The first byte not to be handed out.
    end: Option<u64>,
    size: Option<u64>,
    whole_will_do: bool,
    body: Option<Answer>,
    /// Bytes of the body before `position`.
    ahead: u64,
    discarded: u64,
    /// Resumes since the last byte, and since when there were any.
    fruitless: u32,
    broken: Option<Instant>,
    resume_at: Instant,
    pub(super) patience: Duration,
}

/// Which bytes are wanted.
pub(super) struct Wanted {
    pub(super) start: u64,
    pub(super) end: Option<u64>,
    pub(super) size: Option<u64>,
    /// A whole body in place of a part is given to the caller, who sees it from where it starts.
    pub(super) whole_will_do: bool,
}

impl Download {
    pub(super) async fn open(
        session: Arc<Session>,
        repository: Repository,
        url: Url,
        wanted: Wanted,
    ) -> Result<Self, UpstreamError> {
        let mut download = Self {
            session,
            repository,
            url,
            start: wanted.start,
            position: wanted.start,
            end: wanted.end.or(wanted.size),
            size: wanted.size,
            whole_will_do: wanted.whole_will_do,
            body: None,
            ahead: 0,
            discarded: 0,
            fruitless: 0,
            broken: None,
            resume_at: Instant::now(),
            patience: FRUITLESS,
        };
        if download.is_complete() && wanted.start > 0 {
            return Ok(download);
        }
        let ask = download.ask();
        let mut attempts = Attempts::new();
        loop {
            let attempt = download.session.ask(&download.repository, &ask);
            match attempts.make(&download.session.host, attempt).await {
                Ok(answer) => {
                    download.accept(answer, wanted.whole_will_do)?;
                    return Ok(download);
                }
                Err(failure) => attempts.pause(failure).await?,
            }
        }
    }

    /// Where in the blob the first chunk stands: where it was asked to, or at 0 if the registry ignores ranges.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Of the whole blob, as far as it is known.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The next bytes; None at the end, and never more than were promised. Dropping the future loses nothing.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        while !self.is_complete() {
            let Some(body) = &mut self.body else {
                self.reopen().await?;
                continue;
            };
            match body.chunk().await {
                Ok(Some(bytes)) => {
                    if let Some(bytes) = self.take(bytes) {
                        return Ok(Some(bytes));
                    }
                }
                Ok(None) if self.end.is_none() => {
                    self.size = Some(self.position);
                    self.end = Some(self.position);
                }
                Ok(None) => {
                    let reason = format!("ended at byte {}", self.position);
                    let error = UpstreamError::unavailable(&body.host, reason);
                    self.lost(error.into())?;
                }
                Err(failure) => {
                    self.session.ledger.failed(&failure.error);
                    self.lost(failure)?;
                }
            }
        }
        self.finish().await;
        Ok(None)
    }

    fn is_complete(&self) -> bool {
        self.end.is_some_and(|end| self.position >= end)
    }

    /// Strips off what stands before our position and behind our end.
    fn take(&mut self, mut bytes: Bytes) -> Option<Bytes> {
        let before = self.ahead.min(bytes.len() as u64);
        let _ = bytes.split_to(before as usize);
        self.ahead -= before;
        if let Some(end) = self.end {
            let left = usize::try_from(end - self.position).unwrap_or(usize::MAX);
            bytes.truncate(left);
        }
        if bytes.is_empty() {
            return None;
        }
        self.position += bytes.len() as u64;
        (self.fruitless, self.broken) = (0, None);
        Some(bytes)
    }

    /// The wire broke: says when to resume, or that it is no use.
    fn lost(&mut self, failure: Failure) -> Result<(), UpstreamError> {
        self.body = None;
        let now = Instant::now();
        let give_up = *self.broken.get_or_insert(now) + self.patience;
        let ours = PAUSE * 2_u32.saturating_pow(self.fruitless.min(16));
        let resume_at = failure.pause(ours).map(|pause| now + pause).filter(|then| *then < give_up);
        let Some(resume_at) = resume_at else { return Err(failure.error) };
        tracing::debug!(
            error = %failure.error,
            oci_repository = %self.repository,
            upstream = %self.session.host,
            url = %self.url.path(),
            position = self.position,
            request_id = RequestId::current().map(tracing::field::display),
            "resuming a download"
        );
        self.fruitless += 1;
        self.resume_at = resume_at;
        Ok(())
    }

    async fn reopen(&mut self) -> Result<(), UpstreamError> {
        sleep_until(self.resume_at).await;
        let ask = self.ask();
        match timeout(REOPENING, self.session.ask(&self.repository, &ask)).await {
            Ok(Ok(answer)) => self.accept(answer, false),
            Ok(Err(failure)) => self.lost(failure),
            Err(_) => {
                self.lost(UpstreamError::unavailable(&self.session.host, "did not answer in time").into())
            }
        }
    }

    fn ask(&self) -> Ask {
        let mut ask = Ask::new(Method::GET, self.url.clone());
        ask.by_digest = true;
        let range = match (self.position, self.end) {
            (0, end) if end == self.size => None,
            (start, Some(end)) => Some(format!("bytes={start}-{}", end.saturating_sub(1))),
            (start, None) => Some(format!("bytes={start}-")),
        };
        // Digits always make a header.
        ask.header(RANGE, range.and_then(|range| HeaderValue::try_from(range).ok()))
    }

    /// Checks that an answer is the part that was asked for, and begins to read it.
    fn accept(&mut self, answer: Answer, whole_will_do: bool) -> Result<(), UpstreamError> {
        answer.is_identity()?;
        let (start, size) = if answer.status() == 206 {
            let part = answer.header(CONTENT_RANGE).and_then(content_range);
            let (part, size) = part.ok_or_else(|| answer.invalid("sent a part without saying which"))?;
            if part.start != self.position {
                return Err(
                    answer.invalid(format!("sent bytes from {} in place of {}", part.start, self.position))
                );
            }
            if answer.length().is_some_and(|length| length != part.end - part.start) {
                return Err(answer.invalid("sent a part whose length is not what it says"));
            }
            (part.start, size)
        } else {
            (0, answer.length())
        };
        if let (Some(known), Some(told)) = (self.size, size)
            && known != told
        {
            return Err(answer.invalid(format!("has {told} bytes of a blob of {known}")));
        }
        self.size = self.size.or(size);
        if start < self.position && whole_will_do {
            (self.start, self.position) = (0, 0);
            self.end = self.size;
        }
        self.ahead = self.position - start;
        self.discarded += self.ahead;
        let whole = if self.whole_will_do { self.size.unwrap_or_default().saturating_mul(2) } else { 0 };
        if self.discarded > MAX_DISCARDED.max(whole) {
            return Err(answer.invalid("does not serve parts of a blob"));
        }
        self.end = match (self.end, self.size) {
            (Some(end), Some(size)) => Some(end.min(size)),
            (end, size) => end.or(size),
        };
        self.body = Some(answer);
        Ok(())
    }

    /// Lets the body end by itself when it does so at once, which leaves the connection to be used again.
    async fn finish(&mut self) {
        if let Some(mut body) = self.body.take() {
            let _ = timeout(Duration::from_millis(20), body.chunk()).await;
        }
    }
}

/// `bytes 5-9/100`, the total perhaps a `*`: the part and the size of the whole.
fn content_range(text: &str) -> Option<(Range<u64>, Option<u64>)> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (unit, rest) = text.trim().split_once(' ')?;
    let (part, total) = rest.split_once('/')?;
    let (first, last) = part.split_once('-')?;
    let (first, end) = (number(first)?, number(last)?.checked_add(1)?);
    let size = match total.trim() {
        "*" => None,
        total => Some(number(total)?),
    };
    let sound = unit.eq_ignore_ascii_case("bytes") && first < end && size.is_none_or(|size| end <= size);
    sound.then_some((first..end, size))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 5-9/100"), Some((5..10, Some(100))));
        assert_eq!(content_range("bytes 0-0/*"), Some((0..1, None)));
        for text in [
            "",
            "bytes",
            "bytes */100",
            "bytes 9-5/100",
            "bytes 5-9",
            "bytes 5-100/100",
            "items 5-9/100",
            "bytes -5/9",
            "bytes 0-18446744073709551615/*",
        ] {
            assert_eq!(content_range(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_content_range_is_read_without_panic(text in "(bytes )?[0-9*/ -]{0,60}|.*") {
            let _ = content_range(&text);
        }
    }
}
