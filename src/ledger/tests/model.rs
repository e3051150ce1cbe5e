//! The ledger against a simple model of it, over random histories.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Step {
    Record(u64, &'static str),
    Observe(u64, &'static str, Observation),
    Forget(u64, &'static str),
}

fn step() -> impl Strategy<Value = Step> {
    let repository = || proptest::sample::select(vec!["main", "offsite"]);
    let seen =
        proptest::sample::select(vec![Observation::Found, Observation::Sound, Observation::Damaged, Observation::Gone]);
    prop_oneof![
        (0..3u64, repository()).prop_map(|(number, repository)| Step::Record(number, repository)),
        (0..3u64, repository(), seen).prop_map(|(number, repository, seen)| Step::Observe(number, repository, seen)),
        (0..3u64, repository()).prop_map(|(number, repository)| Step::Forget(number, repository)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_ledger_agrees_with_a_simple_model(steps in proptest::collection::vec(step(), 1..25)) {
        let (_directory, ledger) = ledger();
        let mut model: BTreeMap<(u64, &str), CopyState> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Record(number, repository) => {
                    ledger.record_backup(&entry(number), repository).expect("record");
                    let state = model.get(&(number, repository)).copied().unwrap_or(CopyState::Complete);
                    model.insert((number, repository), state.after(Observation::Found));
                }
                Step::Observe(number, repository, seen) => {
                    let observed = ledger.observe(&entry(number).id, repository, seen, None);
                    match model.get_mut(&(number, repository)) {
                        Some(state) => {
                            *state = state.after(seen);
                            prop_assert_eq!(observed.expect("observe"), *state);
                        }
                        None => prop_assert_eq!(observed.map_err(|e| e.code()), Err(Code::BackupNotFound)),
                    }
                }
                Step::Forget(number, repository) => {
                    let forgotten = ledger.forget_backup(&entry(number).id, repository).expect("forget");
                    prop_assert_eq!(forgotten, model.remove(&(number, repository)).is_some());
                }
            }
        }
        for number in 0..3 {
            let copies: Vec<CopyState> = model.iter().filter(|(key, _)| key.0 == number).map(|(_, state)| *state).collect();
            let row = ledger.backup(&entry(number).id).expect("look up");
            prop_assert_eq!(row.is_some(), !copies.is_empty());
            if let Some(row) = row {
                prop_assert_eq!(row.state, CopyState::together(copies.clone()));
                prop_assert_eq!(row.copies.iter().map(|copy| copy.state).collect::<Vec<_>>(), copies);
            }
        }
        ledger.integrity_check().expect("sound");
    }
}
