//! The damage matrix: every object and manifest of a backup × flips, cuts, appends, removal, swaps. `verify` finds
//! each and names the object; a restore refuses each and leaves nothing behind.

use crate::site::Site;
use std::fs;
use std::path::Path;

/// One way to damage an object; the second backup's object of the same sort is at hand for swaps.
type Damage = (&'static str, fn(&mut Vec<u8>, &[u8]));

const DAMAGES: &[Damage] = &[
    ("first byte flipped", |bytes, _| bytes[0] ^= 0x01),
    ("byte 8 flipped", |bytes, _| bytes[8] ^= 0x80),
    ("byte 20 flipped", |bytes, _| bytes[20] ^= 0x10),
    ("byte 40 flipped", |bytes, _| bytes[40] ^= 0x01),
    ("a quarter flipped", |bytes, _| flip(bytes, 4)),
    ("a third flipped", |bytes, _| flip(bytes, 3)),
    ("the middle flipped", |bytes, _| flip(bytes, 2)),
    ("the last byte flipped", |bytes, _| *bytes.last_mut().expect("byte") ^= 0x01),
    ("the last but 16 flipped", |bytes, _| {
        let at = bytes.len() - 17;
        bytes[at] ^= 0x04;
    }),
    ("the last but 70 flipped", |bytes, _| {
        let at = bytes.len() - 70;
        bytes[at] ^= 0x04;
    }),
    ("one byte cut", |bytes, _| bytes.truncate(bytes.len() - 1)),
    ("a cipher block cut", |bytes, _| bytes.truncate(bytes.len() - 16)),
    ("cut in half", |bytes, _| bytes.truncate(bytes.len() / 2)),
    ("cut to 16 bytes", |bytes, _| bytes.truncate(16)),
    ("emptied", |bytes, _| bytes.clear()),
    ("the first byte removed", |bytes, _| {
        bytes.remove(0);
    }),
    ("a byte inserted", |bytes, _| bytes.insert(bytes.len() / 2, 0)),
    ("a byte appended", |bytes, _| bytes.push(0)),
    ("a cipher block appended", |bytes, _| bytes.extend([7; 16])),
    ("appended to itself", |bytes, _| bytes.extend(bytes.clone())),
    ("zeroed", |bytes, _| bytes.iter_mut().for_each(|byte| *byte = 0)),
    ("halves exchanged", |bytes, _| {
        let half = bytes.len() / 2;
        bytes.rotate_left(half);
    }),
    ("two blocks exchanged", |bytes, _| {
        let (left, right) = bytes.split_at_mut(48);
        left[16..32].swap_with_slice(&mut right[..16]);
    }),
    ("another's content", |bytes, other| *bytes = other.to_vec()),
    ("another's tail", |bytes, other| {
        let half = bytes.len() / 2;
        bytes.truncate(half);
        bytes.extend(&other[other.len() / 2..]);
    }),
    ("another's salt", |bytes, other| bytes[..16].copy_from_slice(&other[..16])),
];

fn flip(bytes: &mut [u8], divisor: usize) {
    let at = bytes.len() / divisor;
    bytes[at] ^= 0x20;
}

// req: A4 B15 X5
#[test]
fn every_damage_is_found_named_and_refused() {
    let site = Site::simulated();
    let first = site.backup("sim");
    fs::write(site.path("database/data/another"), b"so that the second backup differs").expect("write");
    let second = site.backup("sim");
    let all = site.objects();
    let of = |id: &str| {
        let stamp = id.split('-').nth(1).expect("stamp").to_owned();
        all.iter().filter(|path| path.to_string_lossy().contains(&stamp)).cloned().collect::<Vec<_>>()
    };
    let (targets, others) = (of(&second.id.to_string()), of(&first.id.to_string()));
    assert_eq!((targets.len(), others.len()), (3, 3), "data, configuration, manifest: {all:?}");

    let mut tried = 0;
    for (path, other) in targets.iter().zip(&others) {
        let (sound, other) = (fs::read(path).expect("read"), fs::read(other).expect("read"));
        for (what, damage) in DAMAGES {
            let mut bytes = sound.clone();
            damage(&mut bytes, &other);
            if bytes == sound {
                // "Salted__" and an equal prefix of a manifest are the same in both; nothing was damaged.
                continue;
            }
            fs::write(path, &bytes).expect("damage");
            refused(&site, path, what, &second.id.to_string());
            tried += 1;
        }
        for twelfth in 0..12 {
            let mut bytes = sound.clone();
            let at = bytes.len() * twelfth / 12 + 1;
            bytes[at] ^= 0x02;
            fs::write(path, &bytes).expect("damage");
            refused(&site, path, &format!("byte {at} flipped"), &second.id.to_string());
            tried += 1;
        }
        fs::remove_file(path).expect("remove");
        refused(&site, path, "removed", &second.id.to_string());
        let aside = path.with_extension("elsewhere");
        fs::write(&aside, &sound).expect("rename");
        refused(&site, path, "renamed", &second.id.to_string());
        fs::remove_file(&aside).expect("remove");
        tried += 2;
        fs::write(path, &sound).expect("mend");
    }
    // Two whole backups exchanged under each other's names.
    for (one, two) in targets.iter().zip(&others) {
        exchange(one, two);
    }
    refused(&site, &targets[2], "backups exchanged", &second.id.to_string());
    for (one, two) in targets.iter().zip(&others) {
        exchange(one, two);
    }
    println!("{tried} damages tried");
    assert!(tried >= 100, "{tried}");
    // And undamaged it passes, so that the refusals above were about the damage.
    site.verify().expect("sound again");
    site.restore_into("sim", &second.id.to_string(), &site.path("out")).expect("restores");
}

fn exchange(one: &Path, two: &Path) {
    let (a, b) = (fs::read(one).expect("read"), fs::read(two).expect("read"));
    fs::write(one, b).expect("write");
    fs::write(two, a).expect("write");
}

fn refused(site: &Site, path: &Path, what: &str, id: &str) {
    let name = path.file_name().expect("name").to_string_lossy().into_owned();
    let error = site.verify().expect_err(&format!("{name}, {what}: verify saw nothing"));
    assert!(error.message().contains(&name), "{name}, {what}: {error}");
    let out = site.path("out");
    let restored = site.restore_into("sim", id, &out);
    assert!(restored.is_err(), "{name}, {what}: it was restored");
    assert!(!out.exists(), "{name}, {what}: the refused restore left {}", out.display());
}
