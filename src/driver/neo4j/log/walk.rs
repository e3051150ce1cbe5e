//! Goes through the transactions of a log directory, file by file.

use super::files::{LogFile, TRANSACTIONS, numbered};
use super::format::Kernel;
use super::resume::{follows, last_before, same_kind};
use super::scan::{Predecessor, Scanner, Step, Tail, Transaction};
use crate::base::{Code, Error, Result};
use jiff::Timestamp;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A walk; it ends at the last whole transaction of the last file.
pub(super) struct Walk {
    directory: PathBuf,
    file: LogFile,
    scanner: Scanner<Arc<File>>,
    predecessor: Predecessor,
}

impl Walk {
    /// From byte `offset` of file `number` on. Error `LOG_GAP` if that file is missing.
    pub(super) fn from(directory: &Path, number: u64, offset: u64, predecessor: Predecessor) -> Result<Walk> {
        let path = directory.join(format!("{TRANSACTIONS}{number}"));
        let missing = || Error::new(Code::LogGap, format!("{} is missing", path.display()));
        let file = LogFile::open(number, &path)?.ok_or_else(missing)?;
        if file.header()?.is_none() {
            return Err(Error::new(Code::LogGap, format!("{} has no header", path.display())));
        }
        let scanner = Scanner::new(file.file.clone(), &file.name(), offset, predecessor.clone());
        Ok(Walk { directory: directory.to_owned(), file, scanner, predecessor })
    }

    /// The next transaction and the number of the file that it is in. Errors: `LOG_CORRUPTED`, `LOG_GAP` between two
    /// files, `NEO4J_UNSUPPORTED`.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Transaction)>> {
        let mut again = false;
        loop {
            match self.scanner.step()? {
                Step::Transaction(transaction) => {
                    self.predecessor = Predecessor::from(&transaction);
                    return Ok(Some((self.file.number, transaction)));
                }
                Step::Remainder(_) => {}
                Step::End(tail) => {
                    let Some(next) = self.successor()? else { return Ok(None) };
                    if !again {
                        // A server may have written on before it began the next file.
                        again = true;
                        self.scan(self.scanner.position());
                        continue;
                    }
                    self.go_to(next, tail)?;
                    again = false;
                }
            }
        }
    }

    fn scan(&mut self, offset: u64) {
        self.scanner = Scanner::new(self.file.file.clone(), &self.file.name(), offset, self.predecessor.clone());
    }

    /// The next file, if it was begun.
    fn successor(&self) -> Result<Option<LogFile>> {
        let number = self.file.number + 1;
        let next = LogFile::open(number, &self.directory.join(format!("{TRANSACTIONS}{number}")))?;
        let begun = next.as_ref().map(LogFile::header).transpose()?.flatten().is_some();
        Ok(next.filter(|_| begun))
    }

    fn go_to(&mut self, next: LogFile, tail: Tail) -> Result<()> {
        let position = self.scanner.position();
        let Some((header, _)) = next.header()? else { return Ok(()) };
        if let Some((own, _)) = self.file.header()? {
            same_kind(&own, &header, &next.name())?;
        }
        if let Tail::Continues(part) = tail {
            self.predecessor.part = Some(part);
        }
        if tail == Tail::Incomplete || follows(&header, &self.predecessor) == Some(false) {
            let text = format!(
                "{} ends at byte {position} after transaction {}, {} begins after {}: what lies between is missing",
                self.file.name(),
                self.predecessor.transaction.unwrap_or_default(),
                next.name(),
                last_before(&header)
            );
            return Err(Error::new(Code::LogGap, text));
        }
        self.file = next;
        self.scan(0);
        Ok(())
    }
}

/// A transaction, for a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionSummary {
    /// Its id.
    pub id: u64,
    /// When it was committed, by the server's clock.
    pub committed_at: Option<Timestamp>,
    /// Bytes in the log.
    pub bytes: u64,
    /// The file that it is, or ends, in.
    pub file: u64,
    /// Byte in that file at which it begins; of one that began in an earlier file, where it goes on.
    pub offset: u64,
    /// Byte after it.
    pub end: u64,
    /// The kernel that wrote it.
    pub kernel: Kernel,
}

/// The transactions of a log, oldest first.
pub struct Transactions {
    walk: Option<Walk>,
}

/// All transactions that are in the log files of `directory`, verified one by one. The walk ends with the first error.
pub fn transactions(directory: &Path) -> Result<Transactions> {
    let walk = match numbered(directory, TRANSACTIONS)?.first() {
        Some((number, _)) => Some(Walk::from(directory, *number, 0, Predecessor::default())?),
        None => None,
    };
    Ok(Transactions { walk })
}

impl Iterator for Transactions {
    type Item = Result<TransactionSummary>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.walk.as_mut()?.next();
        let summary = |(file, transaction): (u64, Transaction)| TransactionSummary {
            id: transaction.id,
            committed_at: transaction.committed_at(),
            bytes: transaction.earlier_bytes + transaction.end - transaction.start,
            file,
            offset: transaction.start,
            end: transaction.end,
            kernel: transaction.kernel,
        };
        match found {
            Ok(Some(found)) => Some(Ok(summary(found))),
            Ok(None) => {
                self.walk = None;
                None
            }
            Err(error) => {
                self.walk = None;
                Some(Err(error))
            }
        }
    }
}
