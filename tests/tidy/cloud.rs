//! The samples in `packaging/cloud/` beside the agent: rights that it really asks for and no others, prefixes that its keys
//! really have, commands that can really be typed; and the same in JSON, Terraform and CloudFormation.

use super::cloud_forms::{
    Grant, Grants, Rules, cloudformation_lifecycle, from_hcl, from_json, from_yaml, lifecycle, policy,
    terraform_lifecycle, terraform_policy,
};
use super::source::{Finding, Source, report, root, tree};
use clap::Parser;
use neo4j_backup_agent::artifact::identity::{FORMAT, Owner, OwnerDocument, OwnerRecord};
use neo4j_backup_agent::artifact::object_key;
use neo4j_backup_agent::artifact::signing::KeyId;
use neo4j_backup_agent::base::ids::TargetName;
use neo4j_backup_agent::cli::args::{Client, Command, Daemon, Role};
use std::collections::BTreeSet;
use std::fs;

const DIRECTORY: &str = "packaging/cloud";
const ROLES: [&str; 3] = ["writer", "reader", "pruner"];
const ENVIRONMENTS: [&str; 3] = ["dev", "staging", "prod"];

/// A right, the calls of the SDK that take it, the statement it stands in, and who needs it. Beginning and ending an upload
/// is the writer's; the pruner ends what a killed writer left before it removes the rest of that.
const RIGHTS: [(&str, &[&str], &str, &[&str]); 6] = [
    ("s3:GetObject", &["get_object", "head_object"], "Objects", &["writer", "reader", "pruner"]),
    (
        "s3:PutObject",
        &["put_object", "create_multipart_upload", "upload_part", "complete_multipart_upload"],
        "Objects",
        &["writer"],
    ),
    ("s3:DeleteObject", &["delete_object"], "Objects", &["pruner"]),
    ("s3:AbortMultipartUpload", &["abort_multipart_upload"], "Objects", &["writer", "pruner"]),
    ("s3:ListBucket", &["list_objects_v2"], "List", &["writer", "reader", "pruner"]),
    ("s3:ListBucketMultipartUploads", &["list_multipart_uploads"], "Uploads", &["writer", "pruner"]),
];
/// What the key of `sse = "kms"` is used for, which no call of ours names: reading takes one, writing both.
const KEY_RIGHTS: [(&str, &[&str]); 2] =
    [("kms:Decrypt", &["writer", "reader", "pruner"]), ("kms:GenerateDataKey", &["writer"])];
/// Key and pattern of a statement's condition.
type Only = Option<(&'static str, &'static str)>;
/// Each statement's resource and condition.
const STATEMENTS: [(&str, &str, Only); 4] = [
    ("Objects", "arn:aws:s3:::BUCKET/PREFIX/*", None),
    ("List", "arn:aws:s3:::BUCKET", Some(("s3:prefix", "PREFIX/*"))),
    ("Uploads", "arn:aws:s3:::BUCKET", None),
    ("Key", "KEY_ARN", Some(("kms:ViaService", "s3.*.amazonaws.com"))),
];

fn sample(name: &str) -> String {
    fs::read_to_string(root().join(DIRECTORY).join(name)).unwrap_or_else(|cause| panic!("{name}: {cause}"))
}

/// Calls of the SDK and rights named in the product's code of the store, each with its place.
fn asked(sources: &[Source]) -> (Vec<(String, Finding)>, BTreeSet<String>) {
    let (mut calls, mut rights) = (Vec::new(), BTreeSet::new());
    for source in sources.iter().filter(|source| source.path.starts_with("src/repository/s3/")) {
        // A request begins with the name of the call and the bucket's; a method of ours may stand in its place.
        for (at, _) in source.product.match_indices(".bucket(") {
            let before = source.product[..at].trim_end();
            let Some(before) = before.strip_suffix("()") else { continue };
            let name = before.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            let line = source.product[..at].lines().count();
            calls.push((name.to_owned(), Finding::new(&source.path, line, format!("`{name}` takes a right"))));
        }
        for (at, _) in source.text.match_indices("\"s3:") {
            if source.product.as_bytes()[at] == b'"'
                && let Some((right, _)) = source.text[at + 1..].split_once('"')
                && right["s3:".len()..].bytes().all(|byte| byte.is_ascii_alphanumeric())
            {
                rights.insert(right.to_owned());
            }
        }
    }
    (calls, rights)
}

/// Every call is in the table of rights, and the code names exactly the rights of its calls.
fn calls_have_rights(sources: &[Source]) -> Vec<Finding> {
    let (calls, named) = asked(sources);
    let mut findings = Vec::new();
    let mut needed = BTreeSet::new();
    for (call, place) in calls {
        match RIGHTS.iter().find(|(_, calls, ..)| calls.contains(&call.as_str())) {
            Some((right, ..)) => needed.extend([(*right).to_owned()]),
            None => findings.push(Finding {
                text: format!("{}: enter it in RIGHTS, and in the policies of {DIRECTORY}", place.text),
                ..place
            }),
        }
    }
    for right in needed.symmetric_difference(&named) {
        let text = format!("{right}: named in an error and taken by no call, or the other way round");
        findings.push(Finding::new("src/repository/s3", 0, text));
    }
    findings
}

/// What a role's policy must be.
fn wanted(role: &str) -> Grants {
    let of_key = KEY_RIGHTS.iter().map(|(right, roles)| (*right, "Key", *roles));
    let rights = RIGHTS.iter().map(|(right, _, sid, roles)| (*right, *sid, *roles)).chain(of_key);
    let mut wanted = Grants::new();
    for (right, sid, _) in rights.filter(|(.., roles)| roles.contains(&role)) {
        let (_, resource, only) = STATEMENTS.iter().find(|(name, ..)| *name == sid).expect("a statement");
        let grant = wanted.entry(sid.to_owned()).or_insert_with(|| Grant {
            actions: BTreeSet::new(),
            resource: (*resource).to_owned(),
            only: only.map(|(key, pattern)| (key.to_owned(), pattern.to_owned())),
        });
        grant.actions.insert(right.to_owned());
    }
    wanted
}

fn template() -> serde_json::Value {
    from_yaml(&sample("cloudformation.yaml"))
}

// req: A6
#[test]
fn what_the_store_asks_for_is_what_the_roles_are_granted() {
    let sources = tree();
    let (calls, rights) = asked(&sources);
    assert!(calls.len() >= 10 && rights.len() == RIGHTS.len(), "{calls:?} {rights:?}");
    report(calls_have_rights(&sources));
    for role in ROLES {
        assert_eq!(policy(&from_json(&sample(&format!("iam-{role}.json")))), wanted(role), "{role}");
    }
}

// req: A6
#[test]
fn every_template_grants_the_same() {
    let (terraform, template) = (from_hcl(&sample("terraform/policies.tf")), template());
    assert_eq!(terraform["locals"]["grants"].as_object().map(|grants| grants.len()), Some(ROLES.len()));
    let of_type = |kind: &str| -> Vec<&serde_json::Value> {
        let resources = template["Resources"].as_object().expect("resources").values();
        resources.filter(|resource| resource["Type"] == kind).collect()
    };
    assert_eq!(of_type("AWS::IAM::ManagedPolicy").len(), ROLES.len());
    for role in ROLES {
        assert_eq!(terraform_policy(&terraform, role), wanted(role), "{role} in Terraform");
        let name = format!("{}{}Policy", role[..1].to_uppercase(), &role[1..]);
        let document = &template["Resources"][name]["Properties"]["PolicyDocument"];
        assert_eq!(policy(document), wanted(role), "{role} in CloudFormation");
    }
    // The role of workflows has no policy but the writer's.
    for role in of_type("AWS::IAM::Role") {
        assert_eq!(role["Properties"]["ManagedPolicyArns"], serde_json::json!(["${WriterPolicy}"]));
        assert_eq!(role["Properties"].get("Policies"), None);
    }
    let attached = &terraform["resource"]["aws_iam_role_policy_attachment"]["github"];
    assert_eq!(attached["policy_arn"], r#"${aws_iam_policy.role["writer"].arn}"#);
}

// req: A6
#[test]
fn the_documented_rights_are_those() {
    let document = fs::read_to_string(root().join("docs/S3.md")).expect("docs/S3.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `")?.split('|').next());
    let shown: BTreeSet<&str> = rows.flat_map(|cell| cell.split('`')).filter(|word| word.contains(':')).collect();
    let known = RIGHTS.iter().map(|(right, ..)| *right).chain(KEY_RIGHTS.iter().map(|(right, _)| *right));
    assert_eq!(shown, known.collect());
}

fn rules_of(environment: &str) -> Rules {
    lifecycle(&from_json(&sample(&format!("lifecycle-{environment}.json"))), environment)
}

// req: A9
#[test]
fn every_template_has_the_same_lifecycle() {
    let (terraform, template) = (from_hcl(&sample("terraform/main.tf")), template());
    let variables = from_hcl(&sample("terraform/variables.tf"));
    assert!(variables["variable"]["prefix"].is_object(), "{variables}");
    for environment in ENVIRONMENTS {
        let rules = rules_of(environment);
        assert_eq!(terraform_lifecycle(&terraform, environment), rules, "{environment} in Terraform");
        assert_eq!(cloudformation_lifecycle(&template, environment), rules, "{environment} in CloudFormation");
    }
}

/// The rules that an object of this key and size is subject to when it is old.
fn taking<'a>(rules: &'a Rules, key: &str, size: u64) -> Vec<&'a str> {
    let hit = |prefix: &str, larger: Option<u64>| {
        format!("PREFIX/{key}").starts_with(prefix) && larger.is_none_or(|larger| size > larger)
    };
    let taking = rules.iter().filter(|(_, rule)| rule.expires.is_some() && hit(&rule.prefix, rule.larger_than));
    taking.map(|(id, _)| id.as_str()).collect()
}

/// The signed record of a chain's owner whose names are as long as they get.
fn longest_owner() -> usize {
    let record = OwnerRecord {
        document: OwnerDocument::Owner,
        format: FORMAT,
        environment: "e".repeat(32),
        target: TargetName::new(&"t".repeat(32)).expect("name"),
        owner: Owner {
            host: "h".repeat(64),
            machine_id: "0".repeat(32),
            data_identity: "d".repeat(64),
            epoch: u64::MAX,
        },
        state_directory: Some(format!("/{}", "s".repeat(200))),
        since: "2026-11-20T02:00:00.123456789Z".parse().expect("time"),
    };
    let signature = "  \"key_id\": \"0123456789abcdef\",\n  \"hmac\": \"\"\n".len() + 64;
    serde_json::to_string_pretty(&record).expect("JSON").len() + signature
}

// req: A9
#[test]
fn lifecycles_take_what_they_are_meant_to_and_nothing_else() {
    for environment in ENVIRONMENTS {
        let rules = rules_of(environment);
        let target = TargetName::new("graph").expect("name");
        let id = "graph-20261120T023000Z-dump".parse().expect("id");
        let batch = object_key::log_batch_stem(environment, &target, "000001a1", 1, (4, 1, 300));
        let backup = [
            object_key::backup_object(environment, &id, "dump.enc").expect("key"),
            object_key::backup_manifest(environment, &id).expect("key"),
        ];
        for key in &backup {
            assert_eq!(taking(&rules, key.as_str(), 700), ["backups"], "{key}");
        }
        assert_eq!(taking(&rules, &format!("{batch}.meta.json"), 2_000), ["log"]);
        assert_eq!(taking(&rules, &format!("{batch}.log.zst.enc"), 1 << 20), ["log"]);
        let owner = object_key::owner(environment, &target).expect("key");
        assert_eq!(taking(&rules, owner.as_str(), longest_owner() as u64), [""; 0], "{owner}");
        let escrow = object_key::escrowed_key(&KeyId::parse("0123456789abcdef").expect("id")).expect("key");
        let elsewhere = object_key::backup_object("other", &id, "dump.enc").expect("key");
        for key in [&object_key::repository(), &escrow, &elsewhere] {
            let hit = rules.values().any(|rule| format!("PREFIX/{key}").starts_with(&rule.prefix));
            assert!(!hit, "{environment} has a rule for {key}");
        }
    }
}

// req: A9
#[test]
fn lifecycles_are_later_than_the_retention_beside_them() {
    let readme = sample("README.md");
    for (environment, days) in ENVIRONMENTS.into_iter().zip([7, 30, 365]) {
        let rules = rules_of(environment);
        assert_eq!(rules["backups"].expires, Some(days));
        assert!(rules["log"].expires > rules["backups"].expires, "a base's log goes after it");
        let colder = (environment == "prod").then(|| (30, "GLACIER_IR".to_owned()));
        assert_eq!(rules.get("colder").and_then(|rule| rule.moves.clone()), colder);
        let left = &rules["leftovers"];
        assert!(left.uploads.is_some() && left.noncurrent.is_some() && left.markers && left.larger_than.is_none());

        let begin = readme.find(&format!("```toml\n# {environment}")).expect("the retention beside it");
        let block = readme[begin..].trim_start_matches("```toml\n").split("```").next().expect("its end");
        let retention = block.parse::<toml::Table>().expect("TOML")["retention"].clone();
        let number = |key: &str| retention.get(key).and_then(toml::Value::as_integer).unwrap_or(0);
        let window: Option<i64> =
            retention["point_in_time"].as_str().and_then(|text| text.strip_suffix('d')?.parse().ok());
        // The base before the window is needed too: a day older where one is taken daily.
        let oldest = [number("daily"), 7 * number("weekly"), 31 * number("monthly"), number("days")];
        let oldest = oldest.into_iter().max().unwrap_or(0).max(window.expect("days") + 1);
        assert!((oldest as u64) < days, "{environment}: retention keeps up to {oldest} days, the bucket {days}");
    }
}

/// The words of a command up to a pipe, redirection or comment; what a shell or GitHub fills in is `sample`.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quoted, mut begun) = (String::new(), None, false);
    for c in command.chars().chain([' ']) {
        match (quoted, c) {
            (Some(quote), c) if c == quote => quoted = None,
            (None, '"' | '\'') => (quoted, begun) = (Some(c), true),
            (None, '|' | '>' | '<' | '#' | '&' | ';' | ')' | '`' | '\\') => break,
            (None, c) if c.is_whitespace() => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            _ => (word, begun) = (word + &c.to_string(), true),
        }
    }
    // `2>` is no word of the command.
    if begun && word != "2" {
        words.push(word);
    }
    words.into_iter().map(|word| if word.contains('$') { "sample".to_owned() } else { word }).collect()
}

/// Every command of ours in a text, and what our own parser has against it.
fn commands_parse(path: &str, text: &str) -> (usize, Vec<Finding>) {
    let (mut count, mut findings) = (0, Vec::new());
    for (index, line) in text.lines().enumerate() {
        for (at, program) in line.match_indices("neo4j-backup") {
            let rest = &line[at + program.len()..];
            let prose = !line[..at].ends_with(['`', ' ']) && at > 0;
            let client = rest.starts_with("ctl ");
            if prose || !(client || rest.starts_with("d --config ") || rest.starts_with("d run ")) {
                continue;
            }
            count += 1;
            let words = words(&line[at..]);
            let parsed = match client {
                true => Client::try_parse_from(&words).map(|client| client.command),
                false => Daemon::try_parse_from(&words).map(|daemon| match daemon.role {
                    Role::Run { command, .. } => Some(*command),
                    _ => None,
                }),
            };
            match parsed {
                Ok(Some(Command::Other(_))) => findings.push(Finding::new(path, index + 1, format!("{words:?}"))),
                Ok(_) => {}
                Err(error) => findings.push(Finding::new(path, index + 1, format!("{words:?}: {error}"))),
            }
        }
    }
    (count, findings)
}

// req: A12
#[test]
fn commands_in_samples_can_be_typed() {
    for (name, least) in [("github-actions.yml", 5), ("README.md", 6)] {
        let (count, findings) = commands_parse(&format!("{DIRECTORY}/{name}"), &sample(name));
        assert!(count >= least, "{name}: {count} commands");
        report(findings);
    }
}

// req: A6 A7 A12
#[test]
fn the_workflow_does_what_was_asked_for() {
    let workflow = from_yaml(&sample("github-actions.yml"));
    assert_eq!(workflow["on"]["schedule"][0]["cron"], "0 2 * * *");
    assert_eq!(workflow["on"]["workflow_dispatch"]["inputs"]["dry_run"]["type"], "boolean");
    assert_eq!(workflow["permissions"], serde_json::json!({ "contents": "read", "id-token": "write" }));
    let steps = workflow["jobs"]["backup"]["steps"].as_array().expect("steps");
    let at = |what: &str| {
        let found = steps
            .iter()
            .position(|step| step["run"].as_str().or(step["uses"].as_str()).is_some_and(|text| text.contains(what)));
        found.unwrap_or_else(|| panic!("no step has {what}"))
    };
    let (dry, role) = (at("--dry-run"), at("configure-aws-credentials"));
    let (backup, verify, keep) = (at("--note"), at("run verify"), at("upload-artifact"));
    assert!(dry < role && role < backup && backup < verify && verify < keep, "the order of steps");
    let condition = |step: usize| steps[step]["if"].as_str().unwrap_or_default();
    assert_eq!(condition(dry), "github.event_name == 'workflow_dispatch' && inputs.dry_run");
    for real in [role, backup, verify] {
        assert_eq!(condition(real), "github.event_name == 'schedule' || !inputs.dry_run");
    }
    assert_eq!(condition(keep), "failure()");
    assert!(!sample("github-actions.yml").contains("secrets."), "no secret is stored for it");
}

#[test]
fn every_sample_is_described_and_installed() {
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(root().join(DIRECTORY)).expect("samples").flatten() {
        let directory = if entry.path().is_dir() { "/" } else { "" };
        names.push(format!("{}{directory}", entry.file_name().to_string_lossy()));
    }
    let readme = sample("README.md");
    for name in names.iter().filter(|name| *name != "README.md") {
        assert!(readme.contains(&format!("`{name}`")), "README.md says nothing of {name}");
    }
    let install = fs::read_to_string(root().join("packaging/install.sh")).expect("install.sh");
    assert!(install.contains("packaging/cloud/* packaging/cloud/terraform/*"), "packaging/install.sh");
}

#[test]
fn a_call_without_a_right_is_found() {
    let found = |text: &str| {
        calls_have_rights(&[Source::new("src/repository/s3/x.rs", text)]).iter().map(|f| f.line).collect::<Vec<_>>()
    };
    let put = "fn f() {\n    c.put_object()\n        .bucket(&b);\n    g(\"s3:PutObject\");\n}\n";
    assert_eq!(found(put), [0; 0]);
    assert_eq!(found(&put.replace("put_object()", "put_object_tagging()")), [3, 0]);
    assert_eq!(found(&put.replace("PutObject", "GetObject")), [0, 0]);
    assert_eq!(found("#[cfg(test)]\nmod tests { fn f() { c.put_object_acl().bucket(&b); g(\"s3:X\"); } }\n"), [0; 0]);
}

#[test]
fn a_grant_too_many_is_found() {
    let granted = |text: &str| policy(&from_json(text));
    let reader = sample("iam-reader.json");
    assert_eq!(granted(&reader), wanted("reader"));
    for (from, to) in [
        ("[\"s3:GetObject\"]", "[\"s3:GetObject\", \"s3:DeleteObject\"]"),
        ("[\"s3:GetObject\"]", "[\"s3:*\"]"),
        ("BUCKET/PREFIX/*", "BUCKET/*"),
        ("\"s3:prefix\": \"PREFIX/*\"", "\"s3:prefix\": \"*\""),
        ("\"Sid\": \"Key\"", "\"Sid\": \"Other\""),
    ] {
        assert!(reader.contains(from), "{from}");
        assert_ne!(granted(&reader.replacen(from, to, 1)), wanted("reader"), "{to}");
    }
    let deletes = |role: &str| wanted(role)["Objects"].actions.contains("s3:DeleteObject");
    assert_eq!(ROLES.map(deletes), [false, false, true]);
}

#[test]
fn a_command_that_does_not_parse_is_found() {
    let lines = |text: &str| commands_parse("x", text).1.iter().map(|finding| finding.line).collect::<Vec<_>>();
    let good = "sudo -E neo4j-backupd --config \"$CONFIG\" run backup \"$target\" --note \"run $ID\" 2>&1 | tee x\n\
                the agent `neo4j-backupctl list`, neo4j-backupd is its program\n";
    assert_eq!((commands_parse("x", good).0, lines(good)), (2, vec![]));
    assert_eq!(lines("`neo4j-backupctl nothing`\n"), [1]);
    assert_eq!(
        lines("neo4j-backupd run backup x --dry\nneo4j-backupd run nothing\nneo4j-backupctl verify\n"),
        [1, 2, 3]
    );
}
