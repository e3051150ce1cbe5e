//! The error that an answer amounts to: a verification that found damage has its report to give *and* has failed.

use crate::base::{Code, Error};
use crate::operation::answer::{Answer, VerifyReport};

impl Answer {
    /// The error of an answer that is bad news: the job has failed with it, and the command ends with its exit status.
    /// It follows from the answer alone, so that whoever gets the answer, over the bus or in-process, gets the verdict.
    pub fn verdict(&self) -> Option<Error> {
        match self {
            Answer::Verify(report) => damage(report),
            _ => None,
        }
    }
}

/// Names every damaged object.
fn damage(report: &VerifyReport) -> Option<Error> {
    let problems: Vec<_> = report
        .backups
        .iter()
        .flat_map(|backup| backup.problems.iter().map(move |problem| (&backup.repository, problem)))
        .collect();
    let (_, first) = problems.first()?;
    // One kind of problem keeps its own code (a wrong key is no damage); a mixture is damage.
    let same = problems.iter().all(|(_, problem)| problem.code == first.code);
    let code = if same { Code::from_name(&first.code).unwrap_or(Code::BackupCorrupted) } else { Code::BackupCorrupted };
    let lines: Vec<_> = problems
        .iter()
        .map(|(repository, problem)| format!("{} in {repository}: {} ({})", problem.object, problem.text, problem.code))
        .collect();
    Some(Error::new(code, format!("{} problems: {}", lines.len(), lines.join("; "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::answer::{Problem, VerifiedBackup};

    fn report(codes: &[&str]) -> Answer {
        let problem = |(number, code): (usize, &&str)| Problem {
            object: format!("object-{number}"),
            code: (*code).to_owned(),
            text: "it is not what was signed".to_owned(),
        };
        let backup = VerifiedBackup {
            backup: "graph-20261120T020000Z-dump".to_owned(),
            repository: "main".to_owned(),
            objects: 3,
            bytes: 7,
            problems: codes.iter().enumerate().map(problem).collect(),
        };
        Answer::Verify(VerifyReport { quick: false, backups: vec![backup] })
    }

    #[test]
    fn damage_is_an_error_that_names_every_object_and_a_sound_report_is_none() {
        assert!(report(&[]).verdict().is_none());
        let code = |codes: &[&str]| report(codes).verdict().expect("bad news").code();
        assert_eq!(code(&["WRONG_KEY", "WRONG_KEY"]), Code::WrongKey);
        assert_eq!(code(&["WRONG_KEY", "SIGNATURE_INVALID"]), Code::BackupCorrupted);
        let error = report(&["OBJECT_NOT_FOUND", "BACKUP_CORRUPTED"]).verdict().expect("bad news");
        assert!(error.message().contains("object-0 in main") && error.message().contains("object-1"), "{error}");
    }
}
