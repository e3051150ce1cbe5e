//! Feeds `neo4j-admin database load`, which never gets to hang unnoticed.

use super::dump::Admin;
use crate::base::process::{Running, Streams};
use crate::base::task::Task;
use crate::base::{Code, Error, Result};
use crate::driver::VolumeSink;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::process::ChildStdin;
use std::time::Duration;

/// How long `neo4j-admin database load` may take no data before it counts as hung.
const LOAD_STALL_TIMEOUT: Duration = Duration::from_secs(170);
/// How long it may take to finish after the last byte: it flushes everything it wrote.
const LOAD_END_TIMEOUT: Duration = Duration::from_secs(1800);

/// Starts loading a dump of `database` into the directories that `admin`'s configuration names.
pub(super) fn begin(admin: &Admin, database: &str, task: &Task) -> Result<Box<dyn VolumeSink>> {
    let what = format!("loading database {database}");
    let tool = admin
        .database("load")
        .args(["--from-stdin", "--overwrite-destination=true", database])
        .idle_timeout(LOAD_END_TIMEOUT);
    let mut running = admin
        .launcher
        .launch(&tool, Streams { input: true, output: false }, task)
        .map_err(|error| error.context(&what))?;
    let input = running.take_input().map(never_block).transpose()?;
    Ok(Box::new(LoadSink { what, input, running: Some(running), stall: LOAD_STALL_TIMEOUT }))
}

/// The input of one `neo4j-admin database load`. Dropped before [`VolumeSink::finish`], it kills the tool.
struct LoadSink {
    what: String,
    input: Option<ChildStdin>,
    running: Option<Running>,
    stall: Duration,
}

impl Write for LoadSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        loop {
            let Some(input) = &mut self.input else { return Err(ErrorKind::BrokenPipe.into()) };
            match input.write(bytes) {
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => wait_writable(input, &self.what, self.stall)?,
                // The tool is gone; why, it has said on its standard error.
                Err(cause) if cause.kind() == ErrorKind::BrokenPipe => {
                    self.end()?;
                    return Err(cause);
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.input.as_mut().map_or(Ok(()), ChildStdin::flush)
    }
}

/// A tool that stopped reading would block a write for ever, where nobody could end it.
fn never_block(input: ChildStdin) -> Result<ChildStdin> {
    fcntl(&input, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
        .map_err(|cause| Error::new(Code::Internal, format!("preparing a pipe: {cause}")))?;
    Ok(input)
}

fn wait_writable(input: &ChildStdin, what: &str, limit: Duration) -> Result<()> {
    let mut waiting = [PollFd::new(input.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut waiting, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX)) {
        Ok(0) => {
            let text = format!("{what}: the tool took no data for {} s", limit.as_secs());
            Err(Error::new(Code::ToolTimeout, text))
        }
        Ok(_) | Err(nix::Error::EINTR) => Ok(()),
        Err(cause) => Err(Error::new(Code::IoFailed, format!("{what}: waiting for the tool: {cause}"))),
    }
}

impl LoadSink {
    fn end(&mut self) -> Result<()> {
        self.input = None;
        let Some(running) = self.running.take() else {
            return Err(Error::new(Code::Neo4jAdminFailed, format!("{}: the tool has ended before", self.what)));
        };
        let finished = running.wait().map_err(|error| error.context(&self.what))?;
        // The JVM's words for ENOSPC; a full disk has an exit code of its own.
        let full = finished.stderr.contains("No space left on device");
        let code = if full { Code::BackupNoSpace } else { Code::Neo4jAdminFailed };
        finished.expect_success(code, &self.what).map(|_| ())
    }
}

impl VolumeSink for LoadSink {
    fn finish(mut self: Box<Self>, _task: &Task) -> Result<()> {
        self.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_tool_that_takes_no_data_is_given_up() {
        use crate::base::process::{Launcher, LocalLauncher, Tool};
        let streams = Streams { input: true, output: false };
        let tool = Tool::new("/bin/sleep").arg("300");
        let mut running = LocalLauncher::default().launch(&tool, streams, &Task::unobserved()).expect("launch");
        let input = running.take_input().map(|input| never_block(input).expect("pipe"));
        let stall = Duration::from_millis(50);
        let mut sink = LoadSink { what: "loading".to_owned(), input, running: Some(running), stall };
        let error = sink.write_all(&vec![0; 1 << 20]).expect_err("a pipe holds less");
        assert_eq!(Error::from_io("loading", Path::new("x"), error).code(), Code::ToolTimeout);
    }
}
