//! `foretide policy`: what the borders say of a path, without moving anything.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use foretide_flow::{Effect, FilePath, Rule, Ruleset, SiteId, Timestamp, Topology, VolumeId};

use super::RunError;
use crate::config::{self, ConfigError, ServeConfig};

/// Options of `foretide policy`.
#[derive(Args, Debug)]
pub struct Options {
    /// The control plane's configuration, which holds sites, volumes and rules.
    #[arg(long, env = "FORETIDE_CONFIG", default_value = "/etc/foretide/serve.toml", global = true)]
    config: PathBuf,
    /// Answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Whether a path may be at a site, and the rule that decides; exits with 1 if it may not be at one of them.
    Check {
        /// A path in a volume, or VOLUME:PATH.
        path: String,
        /// The volume, if the path does not name it and there are several.
        #[arg(long)]
        volume: Option<VolumeId>,
        /// Sites that are asked about; all of them if none is given.
        #[arg(long)]
        site: Vec<SiteId>,
    },
    /// The rules in the order in which they are asked.
    Rules,
}

/// The answer for one site.
#[derive(serde::Serialize)]
struct Answer {
    volume: VolumeId,
    path: FilePath,
    site: SiteId,
    #[serde(flatten)]
    verdict: foretide_flow::Verdict,
    why: String,
}

/// Runs it.
///
/// # Errors
/// A configuration that cannot be meant, a name that is not in it, or that a rule forbids what was asked about.
pub async fn run(options: Options) -> Result<(), RunError> {
    let (topology, rules) = configured(&options.config)?;
    match options.what {
        What::Rules => {
            rules.rules().for_each(|rule| println!("{} {}: {}", word(rule.effect), rule.name, conditions(rule)));
            println!("{} whatever no rule matches", word(rules.default_effect()));
            Ok(())
        }
        What::Check { path, volume, site } => {
            let (volume, path) = named(&topology, &path, volume)?;
            let answers = check(&topology, &rules, &volume, &path, &site)?;
            if options.json {
                println!("{}", serde_json::to_string_pretty(&answers).map_err(std::io::Error::other)?);
            } else {
                answers.iter().for_each(|a| println!("{:<16} {} {}", a.site.as_str(), word(a.verdict.effect), a.why));
            }
            let forbidden = answers.iter().filter(|a| !a.verdict.allows()).count();
            let told =
                || RunError::Told(format!("{volume}:{path} may not be at {forbidden} of {} sites", answers.len()));
            if forbidden == 0 { Ok(()) } else { Err(told()) }
        }
    }
}

/// Topology and rules of a control plane's configuration.
///
/// # Errors
/// [`ConfigError`] that names the file and what is wrong.
pub fn configured(path: &std::path::Path) -> Result<(Topology, Ruleset), ConfigError> {
    let config: ServeConfig = config::read(path)?;
    let meaningless = |why| ConfigError::Meaningless { path: path.to_owned(), why };
    let topology = config.topology().map_err(meaningless)?;
    let rules = config.ruleset(&topology).map_err(meaningless)?;
    config.planner.check().map_err(|e| meaningless(e.to_string()))?;
    Ok((topology, rules))
}

/// The volume and the path that were meant.
fn named(topology: &Topology, text: &str, volume: Option<VolumeId>) -> Result<(VolumeId, FilePath), RunError> {
    let told = |why: String| RunError::Told(why);
    let known: Vec<&VolumeId> = topology.volumes.keys().collect();
    let before_colon = text.split_once(':').filter(|(name, _)| known.iter().any(|v| v.as_str() == *name));
    let (volume, path) = match (volume, before_colon, known.as_slice()) {
        (Some(volume), _, _) => (volume, text),
        (None, Some((name, path)), _) => (VolumeId::new(name).map_err(|e| told(e.to_string()))?, path),
        (None, None, [only]) => ((*only).clone(), text),
        (None, None, _) => {
            let names = known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(told(format!("{text}: say of which volume with --volume or VOLUME:PATH; there are {names}")));
        }
    };
    if !topology.volumes.contains_key(&volume) {
        return Err(told(format!(
            "volume {volume} is not in the configuration: add it under [volume], or correct the name"
        )));
    }
    let path = FilePath::parse(path.trim_start_matches('/')).map_err(|e| told(format!("{text}: {e}")))?;
    Ok((volume, path))
}

fn check(
    topology: &Topology,
    rules: &Ruleset,
    volume: &VolumeId,
    path: &FilePath,
    sites: &[SiteId],
) -> Result<Vec<Answer>, RunError> {
    let all: Vec<&SiteId> = if sites.is_empty() { topology.sites.keys().collect() } else { sites.iter().collect() };
    let one = |site: &SiteId| {
        if !topology.sites.contains_key(site) {
            return Err(RunError::Told(format!(
                "site {site} is not in the configuration: add it under [site], or correct the name"
            )));
        }
        let verdict = rules.verdict(topology, volume, path, site, Timestamp::now());
        let rule = verdict.rule.as_ref().and_then(|name| rules.rules().find(|r| &r.name == name));
        let at_home = topology.volumes.get(volume).is_some_and(|v| &v.at == site);
        let why = match rule {
            Some(rule) => format!("rule {}: {}", rule.name, conditions(rule)),
            None if at_home => "its source is here".into(),
            None => "no rule matches; the default decides".into(),
        };
        Ok(Answer { volume: volume.clone(), path: path.clone(), site: site.clone(), verdict, why })
    };
    all.into_iter().map(one).collect()
}

/// As wide as the longest.
fn word(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "allow  ",
        Effect::Transit => "transit",
        Effect::Deny => "deny   ",
    }
}

/// What a rule matches, in words.
fn conditions(rule: &Rule) -> String {
    let list = |what: &str, names: Vec<String>| (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")));
    let texts = |names: &[String]| names.to_vec();
    let said = [
        rule.volume.as_ref().map(|v| format!("volume {v}")),
        rule.paths.as_ref().map(|p| format!("paths {p}")),
        list("tags", rule.tags.iter().map(|(k, v)| format!("{k}={v}")).collect()),
        list("at", rule.sites.iter().map(ToString::to_string).collect()),
        list("in", texts(&rule.jurisdictions)),
        list("outside", texts(&rule.outside_jurisdictions)),
        rule.until.map(|t| format!("until {}", t.as_secs_f64())),
    ];
    let said: Vec<String> = said.into_iter().flatten().collect();
    if said.is_empty() { "everything".into() } else { said.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
        state = "/tmp/x"
        [site.store]
        jurisdiction = "eu"
        [site.gpu-us]
        jurisdiction = "us"
        [site.gpu-eu]
        jurisdiction = "eu"
        [volume.scans]
        at = "store"
        tags = { class = "phi" }
        [volume.web]
        at = "store"
        [[policy.rule]]
        name = "phi-stays-in-eu"
        effect = "deny"
        tags = { class = "phi" }
        outside_jurisdictions = ["eu"]
    "#;

    fn asked(path: &str, sites: &[&str]) -> Result<Vec<(bool, String)>, String> {
        let config: ServeConfig = toml::from_str(CONFIG).unwrap();
        let topology = config.topology().unwrap();
        let rules = config.ruleset(&topology).unwrap();
        let sites: Vec<SiteId> = sites.iter().map(|s| SiteId::new(s).unwrap()).collect();
        let (volume, path) = named(&topology, path, None).map_err(|e| e.to_string())?;
        let answers = check(&topology, &rules, &volume, &path, &sites).map_err(|e| e.to_string())?;
        Ok(answers.into_iter().map(|a| (a.verdict.allows(), a.why)).collect())
    }

    #[test]
    fn the_deciding_rule_is_named_with_what_it_says() {
        let answers = asked("scans:/a/1.dcm", &["gpu-us", "gpu-eu", "store"]).unwrap();
        assert_eq!(answers[0], (false, "rule phi-stays-in-eu: tags class=phi; outside eu".into()));
        assert_eq!(answers[1], (true, "no rule matches; the default decides".into()));
        assert_eq!(answers[2], (true, "its source is here".into()));
        assert_eq!(asked("web:a", &[]).unwrap().len(), 3);
    }

    #[test]
    fn a_name_that_is_not_there_is_refused() {
        assert!(asked("a/1.dcm", &[]).unwrap_err().contains("--volume"));
        assert!(asked("scans:a", &["mars"]).unwrap_err().contains("mars"));
    }
}
