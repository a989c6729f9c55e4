//! Puts the sources together: defaults, file, environment, flags, each stronger than the one before. Collects every problem rather than stopping at the first.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::raw::Raw;
use super::secret::is_exposed;
use super::settings::{self, SETTINGS, Setting};
use super::{Config, ConfigError, DEFAULT_DATA, FILE_NAME, Problem, rules};

/// Beginning of every environment variable of ours.
const PREFIX: &str = "CHATSERVER_";

/// Variables with our prefix that are the client commands' own, and no settings.
const CLIENT_VARIABLES: [&str; 1] = ["CHATSERVER_ADDR"];

/// Where to look for a configuration.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--config FILE`; without it `DIR/chatserver.toml` is read if it is there.
    pub file: Option<PathBuf>,
    /// Environment variables; those without our prefix are not looked at.
    pub environment: Vec<(OsString, OsString)>,
    /// `--listen`
    pub listen: Option<SocketAddr>,
    /// `--data`
    pub data: Option<PathBuf>,
    /// `--allow-published-key`
    pub allow_published_key: bool,
}

impl Sources {
    /// This process's environment, and no flags.
    pub fn of_process() -> Sources {
        Sources { environment: std::env::vars_os().collect(), ..Sources::default() }
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A line of a file, counted from 1.
    File(PathBuf, usize),
    /// This environment variable.
    Environment(String),
    /// This flag.
    Flag(&'static str),
    /// A program filled in a [`Config`] itself.
    Program,
}

impl Origin {
    /// Where to look, for a message about setting `name`.
    pub(super) fn place(&self, name: &str, value: Option<&str>) -> String {
        let subject = match self {
            Origin::File(..) => format!("{self}: {name}"),
            Origin::Default | Origin::Program => name.to_owned(),
            Origin::Environment(_) | Origin::Flag(_) => self.to_string(),
        };
        value.map_or(subject.clone(), |value| format!("{subject} = {value}"))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Environment(variable) => f.write_str(variable),
            Origin::Flag(flag) => f.write_str(flag),
            Origin::Program => f.write_str("given by the program"),
        }
    }
}

/// A configuration, and where each of its values came from.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// What is in force.
    pub config: Config,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    /// That file has nothing in it, not even a comment.
    pub is_blank: bool,
    /// That file has a key of the server's own or a password in it.
    is_confidential: bool,
    origins: BTreeMap<&'static str, Origin>,
}

impl Resolved {
    /// Reads the sources.
    ///
    /// # Errors
    /// Everything that is wrong with them, as [`Config::load`].
    pub fn from_sources(sources: &Sources) -> Result<Resolved, ConfigError> {
        let mut assembly = Assembly::new();
        let file = assembly.file(sources);
        assembly.environment(&sources.environment);
        assembly.flags(sources);
        assembly.finish(file)
    }

    /// The configuration file, if there is a secret in it and other users can read it.
    pub fn exposed(&self) -> Option<&Path> {
        let file = self.file.as_deref().filter(|_| self.is_confidential)?;
        std::fs::metadata(file).is_ok_and(|found| found.is_file() && is_exposed(&found)).then_some(file)
    }

    /// Name, value for people (a key is not shown), and origin of every setting.
    pub fn lines(&self) -> Vec<(&'static str, String, Origin)> {
        SETTINGS
            .iter()
            .filter(|setting| setting.gives() == setting.name)
            .map(|setting| (setting.name, setting.show(&self.config), origin_in(&self.origins, setting.name)))
            .collect()
    }
}

fn origin_in(origins: &BTreeMap<&'static str, Origin>, name: &str) -> Origin {
    origins.get(name).cloned().unwrap_or(Origin::Default)
}

/// Longest configuration file in bytes: the sample has 15,000. A longer one is something else, perhaps a log, or has no end.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// What is wrong with the form of a file is told so often. After that it is another file.
const MAX_SYNTAX_PROBLEMS: usize = 20;

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_FILE_BYTES {
        true => Err(io::Error::other("it has more than 1 MiB, so it is no configuration")),
        false => Ok(bytes),
    }
}

/// A configuration while its sources are read, weakest first.
struct Assembly {
    config: Config,
    origins: BTreeMap<&'static str, Origin>,
    problems: Vec<Problem>,
    is_blank: bool,
    is_confidential: bool,
}

impl Assembly {
    fn new() -> Assembly {
        Assembly {
            config: Config::default(),
            origins: BTreeMap::new(),
            problems: Vec::new(),
            is_blank: false,
            is_confidential: false,
        }
    }

    fn finish(mut self, file: Option<PathBuf>) -> Result<Resolved, ConfigError> {
        if self.problems.is_empty() {
            self.problems = rules::broken(&self.config, &|name| origin_in(&self.origins, name));
        }
        if self.problems.is_empty() {
            let Assembly { config, origins, is_blank, is_confidential, .. } = self;
            Ok(Resolved { config, file, is_blank, is_confidential, origins })
        } else {
            Err(ConfigError { problems: self.problems })
        }
    }

    /// Reads the configuration file, if there is one, and says which it was.
    fn file(&mut self, sources: &Sources) -> Option<PathBuf> {
        let named = sources.file.is_some();
        let path = sources.file.clone().unwrap_or_else(|| data_directory(sources).join(FILE_NAME));
        let problem = match read_bounded(&path).map(String::from_utf8) {
            Ok(Ok(text)) => {
                self.is_blank = text.trim().is_empty();
                self.lines_of(&path, &text, named);
                return Some(path);
            }
            Ok(Err(_)) => Problem::new(path.display().to_string(), "this is not UTF-8 text; save it as UTF-8"),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !named => return None,
            Err(error) => Problem::new(
                path.display().to_string(),
                format!("the configuration cannot be read ({error}); correct the name or the permissions"),
            ),
        };
        self.problems.push(problem);
        None
    }

    fn lines_of(&mut self, path: &Path, text: &str, named: bool) {
        // Looked up, not counted anew each time: there may be a hundred thousand lines, and something wrong with all of them.
        let line_ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
        let line_of = |offset: usize| 1 + line_ends.partition_point(|end| *end < offset);
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            self.problems.extend(errors.iter().take(MAX_SYNTAX_PROBLEMS).map(|error| {
                syntax_problem(path, line_of(error.span().map_or(0, |span| span.start)), error.message())
            }));
            return;
        }
        let mut entries: Vec<_> = table
            .get_ref()
            .iter()
            .map(|(key, value)| (line_of(key.span().start), key.get_ref(), value.get_ref()))
            .collect();
        entries.sort_by_key(|(line, ..)| *line);
        for &(line, name, value) in &entries {
            self.entry(Origin::File(path.to_owned(), line), name, value, named);
        }
        for twin in SETTINGS.iter().filter(|setting| setting.gives() != setting.name) {
            let line = |name: &str| entries.iter().find(|entry| entry.1 == name).map(|entry| entry.0);
            if let (Some(_), Some(line)) = (line(twin.gives()), line(twin.name)) {
                self.given_twice(twin, Origin::File(path.to_owned(), line).place(twin.name, None));
            }
        }
    }

    fn entry(&mut self, origin: Origin, name: &str, value: &DeValue<'_>, named: bool) {
        let problem = match settings::find(name) {
            None if matches!(value, DeValue::Table(_)) => Problem::new(
                origin.to_string(),
                format!("there are no sections here; remove [{name}] and write the settings without it"),
            ),
            None => Problem::new(
                origin.to_string(),
                unknown(&format!("setting {name:?}"), settings::most_like(name).map(|like| format!("{like:?}"))),
            ),
            Some(setting) if setting.name == "data" && !named => Problem::new(
                origin.place(name, None),
                "this file was found in the data directory and cannot move it; remove the line, and name the directory with --data DIR or CHATSERVER_DATA",
            ),
            Some(setting) => {
                self.set(setting, &Raw::from_toml(value), origin);
                self.is_confidential |= setting.is_secret() && !(name == "key" && self.config.key.is_published());
                return;
            }
        };
        self.problems.push(problem);
    }

    fn environment(&mut self, environment: &[(OsString, OsString)]) {
        let ours = |name: &OsStr| {
            name.to_str().is_some_and(|name| name.starts_with(PREFIX) && !CLIENT_VARIABLES.contains(&name))
        };
        let mut variables: Vec<_> = environment.iter().filter(|(name, _)| ours(name)).collect();
        variables.sort();
        for (variable, value) in &variables {
            let variable = variable.to_string_lossy().into_owned();
            let setting = SETTINGS.iter().find(|setting| setting.variable() == variable);
            match (setting, value.to_str()) {
                (Some(setting), Some(value)) => {
                    self.set(setting, &Raw::Words(value.to_owned()), Origin::Environment(variable))
                }
                (Some(_), None) => {
                    self.problems.push(Problem::new(variable, "its value is not UTF-8 text; set it again, or unset it"))
                }
                (None, _) => {
                    let name = variable[PREFIX.len()..].to_ascii_lowercase();
                    let like = settings::most_like(&name).and_then(settings::find).map(Setting::variable);
                    self.problems
                        .push(Problem::new(variable.escape_debug().to_string(), unknown("environment variable", like)));
                }
            }
        }
        for twin in SETTINGS.iter().filter(|setting| setting.gives() != setting.name) {
            let is_set = |variable: String| variables.iter().any(|(name, _)| *name == *variable);
            if is_set(twin.variable()) && settings::find(twin.gives()).is_some_and(|other| is_set(other.variable())) {
                self.given_twice(twin, twin.variable());
            }
        }
    }

    fn flags(&mut self, sources: &Sources) {
        if let Some(listen) = sources.listen {
            self.config.listen = listen;
            self.origins.insert("listen", Origin::Flag("--listen"));
        }
        if let Some(data) = &sources.data {
            self.config.data = data.clone();
            self.origins.insert("data", Origin::Flag("--data"));
        }
        if sources.allow_published_key {
            self.config.allow_published_key = true;
            self.origins.insert("allow_published_key", Origin::Flag("--allow-published-key"));
        }
    }

    fn set(&mut self, setting: &'static Setting, raw: &Raw, origin: Origin) {
        match setting.take(&mut self.config, raw) {
            Ok(()) => {
                self.origins.insert(setting.gives(), origin);
            }
            Err(message) => {
                let shown = (!setting.is_secret()).then(|| raw.shown());
                self.problems.push(Problem::new(origin.place(setting.name, shown.as_deref()), message));
            }
        }
    }

    fn given_twice(&mut self, twin: &Setting, place: String) {
        let message = format!("the {} is given twice, as a text and as a file; keep one of them", twin.gives());
        self.problems.push(Problem::new(place, message));
    }
}

/// Where a configuration file is looked for when none is named.
fn data_directory(sources: &Sources) -> PathBuf {
    let variable = || {
        sources.environment.iter().find(|(name, _)| name == "CHATSERVER_DATA").map(|(_, value)| PathBuf::from(value))
    };
    sources.data.clone().or_else(variable).unwrap_or_else(|| PathBuf::from(DEFAULT_DATA))
}

fn unknown(what: &str, like: Option<String>) -> String {
    match like {
        Some(like) => format!("unknown {what}; did you mean {like}?"),
        None => {
            format!("unknown {what}; remove it (`chatserver config sample` lists all settings)")
        }
    }
}

/// TOML's own words, without its picture of the line: that could show a key.
fn syntax_problem(path: &Path, line: usize, message: &str) -> Problem {
    let remedy =
        "write one setting a line, `name = value`, with values in quotes unless they are a bare number, true or false";
    Problem::new(format!("{}:{line}", path.display()), format!("{message}; {remedy}"))
}
