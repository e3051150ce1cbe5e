//! The beginning of a configuration: which of the servers that were found no target covers yet, what their targets are
//! called, and the files that say so. Pure: nothing is written here.

use super::discovery::neo4j::{PACKAGE_HOME, PACKAGE_UNIT};
use super::discovery::servers::{Engine, FoundServer};
use super::settings::{DatabaseSettings, Settings};
use super::value::Value;
use crate::base::ids::{TARGET_NAME_MAX, TargetName};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Room that a number takes at the end of a target's name.
const NUMBER: usize = "_99".len();

/// A target to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTarget {
    /// Its name.
    pub name: TargetName,
    /// Its server.
    pub server: FoundServer,
    /// Where the password of Neo4j's user was put.
    pub password_file: Option<PathBuf>,
}

/// The target that covers a server already.
pub fn covering<'s>(settings: &'s Settings, server: &FoundServer) -> Option<&'s TargetName> {
    let same = |place: &Path| real(place) == real(&server.place);
    let covers = |database: &DatabaseSettings| match (database, server.engine) {
        (DatabaseSettings::Neo4j(neo4j), Engine::Neo4j) => same(&neo4j.home),
        (DatabaseSettings::Postgresql(postgres), Engine::Postgresql) => same(&postgres.data_directory),
        _ => false,
    };
    settings.targets.values().find(|target| covers(&target.database)).map(|target| &target.name)
}

/// The servers that no target covers, each with a name that is neither a target's nor in `taken`. Scratch servers of the
/// agent's own are none.
pub fn new_targets(settings: &Settings, servers: Vec<FoundServer>, taken: &BTreeSet<String>) -> Vec<NewTarget> {
    let mut taken: BTreeSet<String> = taken.clone();
    taken.extend(settings.targets.keys().map(ToString::to_string));
    let own = |server: &FoundServer| server.place.starts_with(&settings.state_directory);
    let new: Vec<FoundServer> =
        servers.into_iter().filter(|server| !own(server) && covering(settings, server).is_none()).collect();
    let several = |engine: Engine| new.iter().filter(|server| server.engine == engine).count() > 1;
    let mut targets = Vec::new();
    for server in &new {
        let Some(name) = name(server, several(server.engine), &taken) else { continue };
        taken.insert(name.to_string());
        targets.push(NewTarget { name, server: server.clone(), password_file: None });
    }
    targets
}

/// `neo4j`, `postgresql`; where there are several `postgresql_15_main`, `neo4j_graph`; then with a number.
fn name(server: &FoundServer, several: bool, taken: &BTreeSet<String>) -> Option<TargetName> {
    let base = match server.engine {
        Engine::Neo4j => "neo4j",
        Engine::Postgresql => "postgresql",
    };
    let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let own = match &server.cluster {
        Some(cluster) => cluster.clone(),
        // `/srv/shop/data` is shop's.
        None if last(&server.place) == "data" => server.place.parent().map(last).unwrap_or_default(),
        None => last(&server.place),
    };
    let own: String =
        own.to_ascii_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let long = format!("{base}_{}", own.trim_matches('_'));
    let long = long[..long.len().min(TARGET_NAME_MAX - NUMBER)].trim_end_matches('_').to_owned();
    let plain = (!several).then(|| base.to_owned());
    let numbered = (2..100).map(|number| format!("{long}_{number}"));
    let mut candidates = plain.into_iter().chain([long.clone()]).chain(numbered);
    candidates.find(|name| !taken.contains(name)).and_then(|name| TargetName::new(&name).ok())
}

fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

impl NewTarget {
    /// The file that says so.
    pub fn fragment(&self) -> String {
        let server = &self.server;
        let what = server.engine.name();
        let place = match &server.cluster {
            Some(cluster) => format!("cluster {cluster} in {}", server.place.display()),
            None => server.place.display().to_string(),
        };
        let mut text = format!(
            "# Written by `neo4j-backupctl init`: the {what} of {place}.\n# What is not said here is discovered; \
             `neo4j-backupctl config show --origin` has what is in force, and from where.\n[target.{}]\n",
            self.name
        );
        let mut add = |key: &str, value: &str| text.push_str(&format!("{key} = {}\n", Value::Text(value.to_owned())));
        let path = |path: &Path| path.display().to_string();
        match server.engine {
            Engine::Neo4j => {
                add("kind", "neo4j");
                let packaged = server.place == Path::new(PACKAGE_HOME);
                if !packaged {
                    add("home", &path(&server.place));
                }
                if let Some(conf) = &server.conf {
                    add("conf", &path(conf));
                }
                if let Some(unit) = server.unit.as_ref().filter(|unit| !(packaged && *unit == PACKAGE_UNIT)) {
                    add("unit", unit);
                }
                match &self.password_file {
                    Some(file) => add("password_file", &path(file)),
                    None => text.push_str("#user = \"neo4j\"\n#password_file = \"…\" # to count what is restored\n"),
                }
            }
            Engine::Postgresql => {
                add("kind", "postgresql");
                match (&server.cluster, &server.unit) {
                    (Some(cluster), _) => add("cluster", cluster),
                    (None, unit) => {
                        add("data_directory", &path(&server.place));
                        if let Some(programs) = &server.programs {
                            add("bin_directory", &path(programs));
                        }
                        if let Some(unit) = unit {
                            add("unit", unit);
                        }
                    }
                }
            }
        }
        text
    }
}

/// The file for a repository: a directory, or `s3://bucket/prefix?region=…`.
pub fn repository_fragment(place: &str) -> String {
    let (key, about) = match place.contains("://") {
        true => ("url", "the credentials come from the environment, a profile or the machine's role"),
        false => ("path", "best on another disk than the databases; a second repository elsewhere is worth more"),
    };
    format!(
        "# Written by `neo4j-backupctl init`: where backups are kept; {about}.\n[repository.main]\n{key} = {}\n",
        Value::Text(place.to_owned())
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn server(engine: Engine, place: &str) -> FoundServer {
        FoundServer {
            engine,
            place: PathBuf::from(place),
            cluster: None,
            conf: None,
            unit: None,
            programs: None,
            process: None,
        }
    }

    fn cluster(name: &str) -> FoundServer {
        FoundServer {
            cluster: Some(name.to_owned()),
            ..server(Engine::Postgresql, &format!("/var/lib/postgresql/{name}"))
        }
    }

    fn loaded(texts: &[&str]) -> Settings {
        let place = tempfile::tempdir().expect("tempdir");
        let fragments = place.path().join("config.d");
        std::fs::create_dir(&fragments).expect("mkdir");
        for (number, text) in texts.iter().enumerate() {
            std::fs::write(fragments.join(format!("{number}.toml")), text).expect("write");
        }
        let main = place.path().join("config.toml");
        std::fs::write(&main, "").expect("write");
        let root = place.path().join("root");
        load(&Sources { main, fragments, environment: vec![], root }).expect("a good configuration").settings
    }

    fn names(targets: &[NewTarget]) -> Vec<&str> {
        targets.iter().map(|target| target.name.as_str()).collect()
    }

    #[test]
    fn one_of_a_sort_has_the_plain_name_and_several_their_own() {
        let empty = loaded(&[]);
        let nothing = BTreeSet::new();
        let one = vec![server(Engine::Neo4j, "/opt/graph"), cluster("15/main")];
        assert_eq!(names(&new_targets(&empty, one, &nothing)), ["neo4j", "postgresql"]);
        let several = vec![
            server(Engine::Neo4j, "/opt/graph"),
            server(Engine::Neo4j, "/srv/graph"),
            server(Engine::Neo4j, "/srv/An Extremely Long-Name.of a directory"),
            cluster("15/main"),
            server(Engine::Postgresql, "/srv/shop/data"),
        ];
        assert_eq!(
            names(&new_targets(&empty, several, &nothing)),
            ["neo4j_graph", "neo4j_graph_2", "neo4j_an_extremely_long_name", "postgresql_15_main", "postgresql_shop"]
        );
        let taken = BTreeSet::from(["neo4j".to_owned()]);
        let again = vec![server(Engine::Neo4j, "/opt/graph")];
        assert_eq!(names(&new_targets(&empty, again, &taken)), ["neo4j_graph"]);
    }

    #[test]
    fn what_a_target_covers_and_the_agents_own_servers_are_left_out() {
        let home = tempfile::tempdir().expect("tempdir");
        let settings = loaded(&[&format!("[target.g]\nkind = \"neo4j\"\nhome = {:?}\n", home.path())]);
        let scratch = settings.state_directory.join("scratch/x");
        let link = home.path().join("link");
        std::os::unix::fs::symlink(home.path(), &link).expect("link");
        let path = |path: &Path| path.display().to_string();
        let servers = [home.path(), &link, &scratch].map(|place| server(Engine::Neo4j, &path(place)));
        assert_eq!(new_targets(&settings, servers.to_vec(), &BTreeSet::new()), []);
        // Another server in the same place is another matter.
        assert_eq!(covering(&settings, &server(Engine::Postgresql, &path(home.path()))), None);
    }

    #[test]
    fn the_files_can_be_read_and_say_what_was_found() {
        let odd = FoundServer {
            conf: Some(PathBuf::from("/srv/a \"b\"/neo4j.conf")),
            unit: Some("g.service".to_owned()),
            ..server(Engine::Neo4j, "/opt/my graph")
        };
        let bare = FoundServer {
            programs: Some(PathBuf::from("/usr/pgsql-15/bin")),
            unit: Some("postgresql-15.service".to_owned()),
            ..server(Engine::Postgresql, "/srv/data")
        };
        let mut targets = new_targets(&loaded(&[]), vec![odd, bare], &BTreeSet::new());
        targets[0].password_file = Some(PathBuf::from("/etc/neo4j-backup/neo4j.password"));
        let repository = repository_fragment("s3://bucket/%H?region=eu-central-1");
        let texts = [targets[0].fragment(), targets[1].fragment(), repository];
        let settings = loaded(&texts.each_ref().map(String::as_str));
        assert_eq!(settings.targets.len(), 2);
        for target in &targets {
            assert_eq!(covering(&settings, &target.server), Some(&target.name));
        }
        let DatabaseSettings::Neo4j(neo4j) = &settings.targets[&targets[0].name].database else { panic!("no Neo4j") };
        assert_eq!(neo4j.conf, Path::new("/srv/a \"b\"/neo4j.conf"));
        assert_eq!(neo4j.service, crate::config::ServiceSettings::Unit("g.service".to_owned()));
        assert_eq!(neo4j.password_file.as_deref(), targets[0].password_file.as_deref());
    }
}
