//! Reading an object, or a range of it: a stream that goes on where it broke off.
//!
//! A task takes pieces from the network and hands them over through a short queue. Every continuation demands the ETag
//! of the beginning, so that two contents are never mixed. What was wanted arrives whole, or there is an error.

use super::bridge::block;
use super::client::Bucket;
use super::head;
use crate::artifact::object_key::ObjectKey;
use crate::base::retry::RetryPolicy;
use crate::base::{Code, Error, Result};
use crate::repository::fault::StoreError;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Buf, Bytes};
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Pieces that wait for the reader; each is at most some hundred KiB.
const QUEUE: usize = 8;
/// How often in a row a broken stream is taken up again.
const RESUMES_MAX: u32 = 8;
/// Bytes after which a stream that broke counts as having got on, so that a large object survives many breaks and one
/// that brings a byte at a time does not go on for ever.
const PROGRESS: u64 = 1 << 20;

/// See the module.
pub(super) struct S3Reader {
    bucket: Arc<Bucket>,
    key: ObjectKey,
    etag: Option<String>,
    position: u64,
    end: u64,
    pieces: Option<Receiver<Result<Bytes, String>>>,
    piece: Bytes,
    breaks: u32,
    /// Where the last break was.
    broke_at: u64,
}

impl S3Reader {
    pub(super) fn open(bucket: &Arc<Bucket>, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Self> {
        let mut reader = S3Reader {
            bucket: bucket.clone(),
            key: key.clone(),
            etag: None,
            position: 0,
            end: 0,
            pieces: None,
            piece: Bytes::new(),
            breaks: 0,
            broke_at: 0,
        };
        match range {
            Some(wanted) => {
                let absent = || StoreError::NotFound { key: key.clone(), location: bucket.location() };
                let found = head::of(bucket, key)?.ok_or_else(absent)?;
                let size = found.size;
                if wanted.start > wanted.end || wanted.end > size {
                    let (key, location) = (key.clone(), bucket.location());
                    return Err(StoreError::TooShort { key, location, size, range: wanted }.into());
                }
                (reader.position, reader.end, reader.etag) = (wanted.start, wanted.end, found.etag);
                if !wanted.is_empty() {
                    reader.ask()?;
                }
            }
            None => reader.ask_for_all()?,
        }
        reader.broke_at = reader.position;
        Ok(reader)
    }

    fn ask_for_all(&mut self) -> Result<()> {
        let request = self.bucket.clients()?.quick.get_object().bucket(&self.bucket.settings.bucket);
        let answer = match self.bucket.call(request.key(self.bucket.name(self.key.as_str())).send())? {
            Ok(answer) => answer,
            Err(failure) if failure.is_absent() => {
                let (key, location) = (self.key.clone(), self.bucket.location());
                return Err(StoreError::NotFound { key, location }.into());
            }
            Err(failure) => return Err(self.bucket.error("reading", "s3:GetObject", &self.key, failure)),
        };
        let Some(size) = answer.content_length().and_then(|size| u64::try_from(size).ok()) else {
            return Err(self.fault("the store tells no size"));
        };
        (self.end, self.etag) = (size, answer.e_tag().map(head::bare));
        self.receive(answer.body, size)
    }

    /// Asks for the rest: from the position to the end, of the same content.
    fn ask(&mut self) -> Result<()> {
        let request = self.bucket.clients()?.quick.get_object().bucket(&self.bucket.settings.bucket);
        let request = request
            .key(self.bucket.name(self.key.as_str()))
            .range(format!("bytes={}-{}", self.position, self.end - 1))
            .set_if_match(self.etag.as_ref().map(|etag| format!("\"{etag}\"")));
        let answer = match self.bucket.call(request.send())? {
            Ok(answer) => answer,
            Err(failure) if failure.is_condition() || failure.is_range() || failure.is_absent() => {
                return Err(self.fault("it was changed while it was read"));
            }
            Err(failure) => return Err(self.bucket.error("reading", "s3:GetObject", &self.key, failure)),
        };
        let expected = self.end - self.position;
        let whole = answer.content_range().is_some_and(|text| text.starts_with(&format!("bytes {}-", self.position)));
        let length = answer.content_length().and_then(|length| u64::try_from(length).ok());
        let same = self.etag.is_none() || answer.e_tag().map(head::bare) == self.etag;
        match () {
            () if !same => Err(self.fault("it was changed while it was read")),
            () if !whole || length != Some(expected) => Err(self.fault("the store sent another range than was wanted")),
            () => self.receive(answer.body, expected),
        }
    }

    fn receive(&mut self, body: ByteStream, length: u64) -> Result<()> {
        let (sender, receiver) = channel(QUEUE);
        self.bucket.bridge.handle()?.spawn(pump(body, length, self.bucket.patience.stall, sender));
        self.pieces = Some(receiver);
        Ok(())
    }

    fn fault(&self, why: &str) -> Error {
        let text = format!("reading {} in {}: {why}", self.key, self.bucket.location());
        Error::new(Code::RepositoryIo, text).with_hint("run it again; if it comes back, the store's own log says more")
    }

    /// The next piece, from this stream or the one that goes on where it broke off.
    fn next(&mut self) -> Result<()> {
        loop {
            let why = match self.pieces.as_mut().and_then(|pieces| block(pieces.recv())) {
                Some(Ok(piece)) => {
                    self.piece = piece;
                    return Ok(());
                }
                Some(Err(why)) => why,
                None => "the stream ended early".to_owned(),
            };
            self.resume(&why)?;
        }
    }

    fn resume(&mut self, why: &str) -> Result<()> {
        self.pieces = None;
        if self.position - self.broke_at >= PROGRESS {
            self.breaks = 0;
        }
        self.broke_at = self.position;
        self.breaks += 1;
        let at = self.position;
        if self.breaks > RESUMES_MAX || self.etag.is_none() {
            let text = format!("reading {} in {} from byte {at}: {why}", self.key, self.bucket.location());
            return Err(Error::new(Code::StorageUnreachable, text));
        }
        tracing::debug!("reading {} broke off at byte {at}: {why}; going on there", self.key);
        let patience = &self.bucket.patience;
        let policy =
            RetryPolicy { attempts: 1, first_pause: patience.first_pause, longest_pause: patience.longest_pause };
        let pause = policy.pause(self.breaks, f64::from(self.breaks % 2));
        self.bucket.bridge.wait(async move { tokio::time::sleep(pause).await })?;
        self.ask()
    }
}

/// Hands the body over, piece by piece. It ends without a word when the reader is gone.
async fn pump(mut body: ByteStream, length: u64, stall: Duration, sender: Sender<Result<Bytes, String>>) {
    let mut left = length;
    while left > 0 {
        let piece = match tokio::time::timeout(stall, body.next()).await {
            Err(_) => Err(format!("nothing came for {} s", stall.as_secs())),
            Ok(Some(Ok(piece))) if piece.len() as u64 <= left => Ok(piece),
            Ok(Some(Ok(_))) => Err("more bytes came than were announced".to_owned()),
            Ok(Some(Err(cause))) => Err(super::fault::chain(&cause)),
            Ok(None) => Err(format!("the body ended {left} bytes early")),
        };
        left -= piece.as_ref().map_or(left, |piece| piece.len() as u64);
        if sender.send(piece).await.is_err() {
            return;
        }
    }
}

impl Read for S3Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.end || buffer.is_empty() {
            return Ok(0);
        }
        while self.piece.is_empty() {
            self.next().map_err(io::Error::from)?;
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece[..count]);
        self.piece.advance(count);
        self.position += count as u64;
        Ok(count)
    }
}
