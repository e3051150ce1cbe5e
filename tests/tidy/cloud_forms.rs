//! The forms that the samples for the cloud come in (JSON, HCL, YAML), read into two that can be compared: what a role is
//! granted, and what a bucket does by itself.

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A statement of a policy, by its `Sid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) actions: BTreeSet<String>,
    /// In the words of the JSON files: `BUCKET`, `PREFIX`, `KEY_ARN`.
    pub(crate) resource: String,
    /// Key and pattern of the one condition.
    pub(crate) only: Option<(String, String)>,
}

/// What a policy grants; a statement that does anything else is an error.
pub(crate) type Grants = BTreeMap<String, Grant>;

/// A rule of a bucket's lifecycle, by its id without the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) prefix: String,
    pub(crate) larger_than: Option<u64>,
    pub(crate) expires: Option<u64>,
    /// Days and storage class.
    pub(crate) moves: Option<(u64, String)>,
    pub(crate) noncurrent: Option<u64>,
    pub(crate) uploads: Option<u64>,
    /// Delete markers that nothing is behind go.
    pub(crate) markers: bool,
}

pub(crate) type Rules = BTreeMap<String, Rule>;

/// A JSON document.
pub(crate) fn from_json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// A file of Terraform; expressions are texts as `"${…}"`.
pub(crate) fn from_hcl(text: &str) -> Value {
    hcl::from_str(text).expect("HCL")
}

/// A YAML document; `!Ref X` and `!GetAtt X` are `"${X}"`, `!Sub` is its text, other tags are objects as `Fn::If`.
pub(crate) fn from_yaml(text: &str) -> Value {
    let documents = Yaml::load_from_str(text).expect("YAML");
    assert_eq!(documents.len(), 1, "one document");
    value_of(&documents[0])
}

fn value_of(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(truth)) => json!(truth),
        Yaml::Value(Scalar::Integer(number)) => json!(number),
        Yaml::Value(Scalar::FloatingPoint(number)) => json!(number.0),
        Yaml::Value(Scalar::String(text)) => json!(text),
        Yaml::Sequence(items) => items.iter().map(value_of).collect(),
        Yaml::Mapping(members) => {
            let name = |key: &Yaml| key.as_str().expect("a name").to_owned();
            members.iter().map(|(key, value)| (name(key), value_of(value))).collect::<Map<_, _>>().into()
        }
        Yaml::Tagged(tag, inner) => match (tag.suffix.as_str(), value_of(inner)) {
            ("Ref" | "GetAtt", Value::String(name)) => json!(format!("${{{name}}}")),
            ("Sub", text) => text,
            (other, inner) => json!({ format!("Fn::{other}"): inner }),
        },
        other => panic!("{other:?} has no place in a sample"),
    }
}

/// One thing, or a list of them.
fn list(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items.clone(),
        one => vec![one.clone()],
    }
}

fn texts(value: &Value) -> Vec<String> {
    list(value).iter().map(|item| item.as_str().unwrap_or_else(|| panic!("{item} is no text")).to_owned()).collect()
}

fn only_text(value: &Value) -> String {
    match texts(value).as_slice() {
        [text] => text.clone(),
        other => panic!("one text, not {other:?}"),
    }
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// The members must be these and no others: what is not understood would not be compared.
fn expect_members(value: &Value, known: &[&str]) {
    let members = value.as_object().unwrap_or_else(|| panic!("{value} is no object"));
    for name in members.keys() {
        assert!(known.contains(&name.as_str()), "{name} is not known here: {value}");
    }
}

/// A policy as IAM has it.
pub(crate) fn policy(document: &Value) -> Grants {
    expect_members(document, &["Version", "Statement"]);
    assert_eq!(document["Version"], "2012-10-17");
    let mut grants = Grants::new();
    for statement in list(&document["Statement"]) {
        expect_members(&statement, &["Sid", "Effect", "Action", "Resource", "Condition"]);
        assert_eq!(statement["Effect"], "Allow", "{statement}");
        let only = statement.get("Condition").map(|condition| {
            expect_members(condition, &["StringLike"]);
            let pairs: Vec<_> = condition["StringLike"].as_object().expect("a condition").iter().collect();
            assert_eq!(pairs.len(), 1, "{condition}");
            (pairs[0].0.clone(), plain(&only_text(pairs[0].1)))
        });
        let resource = plain(&only_text(&statement["Resource"]));
        let grant = Grant { actions: texts(&statement["Action"]).into_iter().collect(), resource, only };
        assert_eq!(grants.insert(only_text(&statement["Sid"]), grant), None, "a Sid twice: {statement}");
    }
    grants
}

/// A template's own words in those of the JSON files.
fn plain(text: &str) -> String {
    let words = [
        ("${aws_s3_bucket.backups.arn}", "arn:aws:s3:::BUCKET"),
        ("${Backups.Arn}", "arn:aws:s3:::BUCKET"),
        ("${aws_kms_key.backups.arn}", "KEY_ARN"),
        ("${BackupsKey.Arn}", "KEY_ARN"),
        ("${var.prefix}", "PREFIX"),
        ("${Prefix}", "PREFIX"),
    ];
    words.iter().fold(text.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
}

/// The policy of a role in Terraform: the table of grants, laid into the one document that all roles share.
pub(crate) fn terraform_policy(file: &Value, role: &str) -> Grants {
    let table = &file["locals"]["grants"][role];
    expect_members(table, &["Objects", "List", "Uploads", "Key"]);
    let document = &file["data"]["aws_iam_policy_document"]["role"];
    expect_members(document, &["for_each", "statement", "dynamic"]);
    let dynamic = &document["dynamic"]["statement"];
    let mut statements = list(&document["statement"]);
    statements.push(dynamic["content"].clone());
    let mut grants = Grants::new();
    for statement in statements {
        expect_members(&statement, &["sid", "actions", "resources", "condition"]);
        let sid = only_text(&statement["sid"]);
        let from_table = [format!("${{each.value.{sid}}}"), "${statement.value}".to_owned()];
        assert!(from_table.contains(&only_text(&statement["actions"])), "{statement}");
        let actions: BTreeSet<String> = texts(&table[&sid]).into_iter().collect();
        if actions.is_empty() {
            let guard = format!("${{length(each.value.{sid}) > 0 ? [each.value.{sid}] : []}}");
            assert_eq!(only_text(&dynamic["for_each"]), guard, "a statement without actions");
            continue;
        }
        let only = statement.get("condition").map(|condition| {
            assert_eq!(condition["test"], "StringLike");
            (only_text(&condition["variable"]), plain(&only_text(&condition["values"])))
        });
        let resource = plain(&only_text(&statement["resources"]));
        assert_eq!(grants.insert(sid, Grant { actions, resource, only }), None);
    }
    grants
}

fn add(rules: &mut Rules, environment: &str, id: &str, rule: Rule) {
    let id =
        id.strip_prefix(&format!("{environment}-")).unwrap_or_else(|| panic!("{id} does not name its environment"));
    assert_eq!(rules.insert(id.to_owned(), rule), None, "{id} twice");
}

/// A lifecycle as `aws s3api` takes it.
pub(crate) fn lifecycle(document: &Value, environment: &str) -> Rules {
    expect_members(document, &["Rules"]);
    let mut rules = Rules::new();
    for rule in list(&document["Rules"]) {
        let actions = ["Expiration", "Transitions", "NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"];
        expect_members(&rule, &[["ID", "Status", "Filter", ""], actions].concat());
        assert_eq!(rule["Status"], "Enabled");
        let filter = rule["Filter"].get("And").unwrap_or(&rule["Filter"]);
        expect_members(filter, &["Prefix", "ObjectSizeGreaterThan"]);
        let moves = list(&rule["Transitions"]);
        assert!(moves.len() < 2, "{rule}");
        let read = Rule {
            prefix: only_text(&filter["Prefix"]),
            larger_than: number(&filter["ObjectSizeGreaterThan"]),
            expires: number(&rule["Expiration"]["Days"]),
            moves: moves.first().map(|to| (number(&to["Days"]).expect("days"), only_text(&to["StorageClass"]))),
            noncurrent: number(&rule["NoncurrentVersionExpiration"]["NoncurrentDays"]),
            uploads: number(&rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]),
            markers: rule["Expiration"]["ExpiredObjectDeleteMarker"] == true,
        };
        add(&mut rules, environment, &only_text(&rule["ID"]), read);
    }
    rules
}

/// The same in Terraform.
pub(crate) fn terraform_lifecycle(file: &Value, environment: &str) -> Rules {
    let locals = &file["locals"];
    let ages = &locals["ages"][environment];
    expect_members(ages, &["backups", "log", "noncurrent", "colder"]);
    let days = |value: &Value| {
        let named = value.as_str().and_then(|text| text.strip_prefix("${local.age.")?.strip_suffix('}'));
        number(named.map_or(value, |name| &ages[name]))
    };
    assert_eq!(locals["age"], "${local.ages[var.environment]}");
    let here = |text: &str| {
        let text = text.replace("${local.root}", &only_text(&locals["root"]));
        plain(&text.replace("${var.environment}", environment))
    };
    let resource = &file["resource"]["aws_s3_bucket_lifecycle_configuration"]["backups"];
    let mut written = list(&resource["rule"]);
    let dynamic = &resource["dynamic"]["rule"];
    assert_eq!(dynamic["for_each"], "${local.age.colder > 0 ? [local.age.colder] : []}");
    if number(&ages["colder"]) != Some(0) {
        let mut colder = dynamic["content"].clone();
        assert_eq!(colder["transition"]["days"], "${rule.value}");
        colder["transition"]["days"] = ages["colder"].clone();
        written.push(colder);
    }
    let mut rules = Rules::new();
    for rule in written {
        assert_eq!(rule["status"], "Enabled");
        let filter = rule["filter"].get("and").unwrap_or(&rule["filter"]);
        let moves = rule.get("transition");
        let read = Rule {
            prefix: here(&only_text(&filter["prefix"])),
            larger_than: number(&filter["object_size_greater_than"]),
            expires: days(&rule["expiration"]["days"]),
            moves: moves.map(|to| (number(&to["days"]).expect("days"), only_text(&to["storage_class"]))),
            noncurrent: days(&rule["noncurrent_version_expiration"]["noncurrent_days"]),
            uploads: days(&rule["abort_incomplete_multipart_upload"]["days_after_initiation"]),
            markers: rule["expiration"]["expired_object_delete_marker"] == true,
        };
        add(&mut rules, environment, &here(&only_text(&rule["id"])), read);
    }
    rules
}

/// The same in CloudFormation.
pub(crate) fn cloudformation_lifecycle(template: &Value, environment: &str) -> Rules {
    let ages = &template["Mappings"]["Ages"][environment];
    expect_members(ages, &["Backups", "Log", "Noncurrent", "Colder"]);
    let days = |value: &Value| match &value["Fn::FindInMap"] {
        Value::Null => number(value),
        found => {
            assert_eq!((&found[0], &found[1]), (&json!("Ages"), &json!("${Environment}")), "{found}");
            number(&ages[found[2].as_str().expect("a name")])
        }
    };
    let never = json!({ "Fn::Equals": [{ "Fn::FindInMap": ["Ages", "${Environment}", "Colder"] }, 0] });
    assert_eq!(template["Conditions"]["GetsColder"], json!({ "Fn::Not": [never] }));
    let here = |text: &str| plain(&text.replace("${Environment}", environment));
    let mut rules = Rules::new();
    for rule in list(&template["Resources"]["Backups"]["Properties"]["LifecycleConfiguration"]["Rules"]) {
        let rule = match &rule["Fn::If"] {
            Value::Null => rule,
            choice => {
                assert_eq!((&choice[0], &choice[2]), (&json!("GetsColder"), &json!("${AWS::NoValue}")));
                if days(&ages["Colder"]) == Some(0) {
                    continue;
                }
                choice[1].clone()
            }
        };
        assert_eq!(rule["Status"], "Enabled");
        let moves = list(&rule["Transitions"]);
        let read = Rule {
            prefix: here(&only_text(&rule["Prefix"])),
            larger_than: number(&rule["ObjectSizeGreaterThan"]),
            expires: days(&rule["ExpirationInDays"]),
            moves: moves
                .first()
                .map(|to| (days(&to["TransitionInDays"]).expect("days"), only_text(&to["StorageClass"]))),
            noncurrent: days(&rule["NoncurrentVersionExpiration"]["NoncurrentDays"]),
            uploads: days(&rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]),
            markers: rule["ExpiredObjectDeleteMarker"] == true,
        };
        add(&mut rules, environment, &here(&only_text(&rule["Id"])), read);
    }
    rules
}
