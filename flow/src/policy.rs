//! Borders: which data may be where. Written by admins; asked by the planner, the sender and the receiver alike
//! (promise I), so the one answer lives with the value.

use std::collections::BTreeMap;

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

use crate::{FilePath, Site, SiteId, Timestamp, Topology, VolumeId};

/// How far Foretide acts on its own forecasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Plans are shown, nothing moves.
    Advise,
    /// Plans are made and scored against what is read, nothing moves.
    Shadow,
    /// Plans are carried out.
    #[default]
    Enforce,
}

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// May rest there, and pass.
    Allow,
    /// May pass on its way to another site, and not rest there.
    Transit,
    /// May do neither.
    Deny,
}

/// One rule, as the admin wrote it. Absent conditions match everything; all that are present must match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Named in each refusal.
    pub name: String,
    /// What it does.
    pub effect: Effect,
    /// Only this volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeId>,
    /// Only paths that match this glob (`**` crosses folders), such as `patients/**`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<String>,
    /// Only volumes that carry all these tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Only these destination sites.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<SiteId>,
    /// Only destinations in these jurisdictions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jurisdictions: Vec<String>,
    /// Only destinations outside these jurisdictions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outside_jurisdictions: Vec<String>,
    /// Void after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// The answer for one file at one site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Verdict {
    /// What the bytes may do there.
    pub effect: Effect,
    /// The rule that decided; none if the volume's default did.
    pub rule: Option<String>,
}

impl Verdict {
    /// Whether the bytes may rest there.
    pub fn allows(&self) -> bool {
        self.effect == Effect::Allow
    }

    /// Whether the bytes may be there on their way to another site.
    pub fn lets_pass(&self) -> bool {
        self.effect != Effect::Deny
    }
}

/// Why rules were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesetError {
    /// Two rules share a name, so a refusal could not say which.
    #[error("two rules are named {0:?}: give each its own name")]
    SameName(String),
    /// All that a rule matches is decided otherwise by one before it, so it can never decide.
    #[error(
        "rule {1:?} can never decide: {0:?}, which stands before it, matches all of the same and says otherwise: remove one of them, or put {1:?} first"
    )]
    Contradiction(String, String),
    /// A glob that does not parse.
    #[error("rule {rule:?}: paths {glob:?} is no glob: {why}")]
    BadGlob {
        /// The rule.
        rule: String,
        /// Its pattern.
        glob: String,
        /// The parser's word.
        why: String,
    },
    /// A rule names a site or volume that is not there.
    #[error("rule {rule:?} names {what} {name:?}, which is not in the topology: add it, or correct the name")]
    Unknown {
        /// The rule.
        rule: String,
        /// Site or volume.
        what: &'static str,
        /// The name.
        name: String,
    },
}

/// Rules in order: the first that matches decides; if none does, the data may go (or, with `default = "deny"`,
/// may not). The site of the source itself is always allowed: the data is there.
#[derive(Clone, Debug)]
pub struct Ruleset {
    rules: Vec<(Rule, Option<GlobMatcher>)>,
    default: Effect,
}

/// As written: compiled globs follow from it.
impl PartialEq for Ruleset {
    fn eq(&self, other: &Self) -> bool {
        self.default == other.default && self.rules().eq(other.rules())
    }
}

impl Default for Ruleset {
    fn default() -> Self {
        Self { rules: Vec::new(), default: Effect::Allow }
    }
}

impl Ruleset {
    /// Takes the rules, checked against each other and the topology.
    ///
    /// # Errors
    /// [`RulesetError`] for the first rule that cannot be meant.
    pub fn new(rules: Vec<Rule>, default: Effect, topology: &Topology) -> Result<Self, RulesetError> {
        let mut compiled: Vec<(Rule, Option<GlobMatcher>)> = Vec::with_capacity(rules.len());
        for rule in rules {
            if compiled.iter().any(|(r, _)| r.name == rule.name) {
                return Err(RulesetError::SameName(rule.name));
            }
            let unknown =
                |what, name: &str| RulesetError::Unknown { rule: rule.name.clone(), what, name: name.to_owned() };
            if let Some(v) = rule.volume.as_ref().filter(|v| !topology.volumes.contains_key(v)) {
                return Err(unknown("volume", v.as_str()));
            }
            if let Some(s) = rule.sites.iter().find(|s| !topology.sites.contains_key(s)) {
                return Err(unknown("site", s.as_str()));
            }
            if let Some((other, _)) = compiled.iter().find(|(r, _)| r.effect != rule.effect && covers(r, &rule)) {
                return Err(RulesetError::Contradiction(other.name.clone(), rule.name));
            }
            let matcher = rule.paths.as_deref().map(|g| compile(&rule.name, g)).transpose()?;
            compiled.push((rule, matcher));
        }
        Ok(Self { rules: compiled, default })
    }

    /// The rules as written.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(|(r, _)| r)
    }

    /// What holds where no rule matches.
    pub fn default_effect(&self) -> Effect {
        self.default
    }

    /// Whether the bytes of `path` in `volume` may rest at `site`.
    pub fn verdict(
        &self,
        topology: &Topology,
        volume: &VolumeId,
        path: &FilePath,
        site: &SiteId,
        now: Timestamp,
    ) -> Verdict {
        let source = topology.volumes.get(volume);
        if source.is_some_and(|v| &v.at == site) {
            return Verdict { effect: Effect::Allow, rule: None };
        }
        let no_tags = BTreeMap::new();
        let tags = source.map_or(&no_tags, |v| &v.tags);
        let destination = topology.sites.get(site);
        let decided = self.rules.iter().find(|(rule, glob)| {
            rule.until.is_none_or(|until| now <= until)
                && rule.volume.as_ref().is_none_or(|v| v == volume)
                && rule.tags.iter().all(|(k, v)| tags.get(k) == Some(v))
                && glob.as_ref().is_none_or(|g| g.is_match(path.as_os_path()))
                && names_site(rule, site, destination)
        });
        match decided {
            Some((rule, _)) => Verdict { effect: rule.effect, rule: Some(rule.name.clone()) },
            None => Verdict { effect: self.default, rule: None },
        }
    }
}

/// Whether a rule matches all that another does, for as long as that one holds. What this denies may yet be so: globs are
/// compared by their words.
fn covers(a: &Rule, b: &Rule) -> bool {
    let lasts = a.until.is_none_or(|a| b.until.is_some_and(|b| b <= a));
    let within = |a: &[String], b: &[String]| a.is_empty() || (!b.is_empty() && b.iter().all(|j| a.contains(j)));
    let outside = a.outside_jurisdictions.iter().all(|j| {
        let never_there = !b.jurisdictions.is_empty() && !b.jurisdictions.contains(j);
        never_there || b.outside_jurisdictions.contains(j)
    });
    lasts
        && a.volume.as_ref().is_none_or(|v| b.volume.as_ref() == Some(v))
        && a.tags.iter().all(|(k, v)| b.tags.get(k) == Some(v))
        && a.paths.as_ref().is_none_or(|a| b.paths.as_ref().is_some_and(|b| covers_glob(a, b)))
        && (a.sites.is_empty() || (!b.sites.is_empty() && b.sites.iter().all(|s| a.sites.contains(s))))
        && within(&a.jurisdictions, &b.jurisdictions)
        && outside
}

/// Whether one glob is the other, or a folder (`x/**`) with the other below it.
fn covers_glob(a: &str, b: &str) -> bool {
    let below = |folder: &str| !folder.contains(['*', '?', '[', '{']) && b.starts_with(&format!("{folder}/"));
    a == b || a == "**" || a.strip_suffix("/**").is_some_and(below)
}

fn names_site(rule: &Rule, site: &SiteId, destination: Option<&Site>) -> bool {
    let jurisdiction = destination.map_or("", |s| s.jurisdiction.as_str());
    let within = |list: &[String]| list.iter().any(|j| j == jurisdiction);
    (rule.sites.is_empty() || rule.sites.contains(site))
        && (rule.jurisdictions.is_empty() || within(&rule.jurisdictions))
        && (rule.outside_jurisdictions.is_empty() || !within(&rule.outside_jurisdictions))
}

fn compile(rule: &str, glob: &str) -> Result<GlobMatcher, RulesetError> {
    let bad = |e: globset::Error| RulesetError::BadGlob {
        rule: rule.to_owned(),
        glob: glob.to_owned(),
        why: e.kind().to_string(),
    };
    Ok(GlobBuilder::new(glob).literal_separator(true).build().map_err(bad)?.compile_matcher())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology() -> Topology {
        let site =
            |j: &str| Site { jurisdiction: j.into(), labels: BTreeMap::new(), cache: None, accelerator_per_hour: 0.0 };
        let id = |s: &str| SiteId::new(s).unwrap();
        Topology {
            sites: [(id("store"), site("eu")), (id("gpu-eu"), site("eu")), (id("gpu-us"), site("us"))].into(),
            links: vec![],
            volumes: [(
                VolumeId::new("scans").unwrap(),
                crate::Volume { tags: [("class".into(), "phi".into())].into(), ..crate::Volume::at(id("store")) },
            )]
            .into(),
        }
    }

    fn rule(name: &str, effect: Effect) -> Rule {
        Rule {
            name: name.into(),
            effect,
            volume: None,
            paths: None,
            tags: BTreeMap::new(),
            sites: vec![],
            jurisdictions: vec![],
            outside_jurisdictions: vec![],
            until: None,
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides_and_is_named() {
        let t = topology();
        let public = Rule { paths: Some("public/**".into()), ..rule("public-anywhere", Effect::Allow) };
        let phi = Rule {
            tags: [("class".into(), "phi".into())].into(),
            outside_jurisdictions: vec!["eu".into()],
            ..rule("phi-stays-in-eu", Effect::Deny)
        };
        let rules = Ruleset::new(vec![public, phi], Effect::Allow, &t).unwrap();
        let ask = |path: &str, site: &str| {
            rules.verdict(
                &t,
                &VolumeId::new("scans").unwrap(),
                &FilePath::parse(path).unwrap(),
                &SiteId::new(site).unwrap(),
                Timestamp(0),
            )
        };
        assert_eq!(ask("a/1.dcm", "gpu-us"), Verdict { effect: Effect::Deny, rule: Some("phi-stays-in-eu".into()) });
        assert!(ask("public/x/1.dcm", "gpu-us").allows());
        assert_eq!(ask("a/1.dcm", "gpu-eu"), Verdict { effect: Effect::Allow, rule: None });
        assert!(ask("a/1.dcm", "store").allows());
    }

    /// Whatever a rule covers, it decides: asked of every place and path, the covered rule is never named.
    #[test]
    fn a_covered_rule_never_decides_and_one_that_is_not_does() {
        let t = topology();
        let sites = || vec![vec![], vec![SiteId::new("gpu-eu").unwrap()], vec![SiteId::new("gpu-us").unwrap()]];
        let words = || vec![vec![], vec!["eu".to_owned()], vec!["us".to_owned()], vec!["eu".to_owned(), "us".into()]];
        let mut kinds = Vec::new();
        for paths in [None, Some("**"), Some("a/**"), Some("a/b/*"), Some("c")] {
            for (sites, jurisdictions) in
                sites().into_iter().flat_map(|s| words().into_iter().map(move |j| (s.clone(), j)))
            {
                for outside_jurisdictions in words() {
                    let (paths, jurisdictions, sites) =
                        (paths.map(str::to_owned), jurisdictions.clone(), sites.clone());
                    let plain = rule("plain", Effect::Allow);
                    kinds.push(Rule { paths, sites, jurisdictions, outside_jurisdictions, ..plain });
                }
            }
        }
        let volume = VolumeId::new("scans").unwrap();
        let matches = |rules: &Ruleset, path: &str, site: &SiteId| {
            rules.verdict(&t, &volume, &FilePath::parse(path).unwrap(), site, Timestamp(0)).rule.is_some()
        };
        let alone = |rule: &Rule| Ruleset::new(vec![rule.clone()], Effect::Allow, &t).unwrap();
        let sets: Vec<Ruleset> = kinds.iter().map(alone).collect();
        let asked: Vec<(&str, &SiteId)> =
            ["a/b/x", "a/y", "c", "d"].iter().flat_map(|p| t.sites.keys().map(move |s| (*p, s))).collect();
        for (a, of_a) in kinds.iter().zip(&sets) {
            for (b, of_b) in kinds.iter().zip(&sets).filter(|(b, _)| covers(a, b)) {
                for (path, site) in &asked {
                    assert!(!matches(of_b, path, site) || matches(of_a, path, site), "{a:?} does not cover {b:?}");
                }
            }
        }
    }

    #[test]
    fn what_may_pass_may_not_rest() {
        let t = topology();
        let through = Rule { jurisdictions: vec!["us".into()], ..rule("through", Effect::Transit) };
        let rules = Ruleset::new(vec![through], Effect::Allow, &t).unwrap();
        let ask = |site: &str| {
            let (volume, site) = (VolumeId::new("scans").unwrap(), SiteId::new(site).unwrap());
            rules.verdict(&t, &volume, &FilePath::root(), &site, Timestamp(0))
        };
        assert!(!ask("gpu-us").allows() && ask("gpu-us").lets_pass());
        assert!(ask("gpu-eu").allows() && ask("gpu-eu").lets_pass());
        let text = serde_json::to_string(&Effect::Transit).unwrap();
        assert_eq!((text.as_str(), serde_json::from_str::<Effect>(&text).unwrap()), ("\"transit\"", Effect::Transit));
    }

    #[test]
    fn an_expired_rule_is_void() {
        let t = topology();
        let deny = Rule { until: Some(Timestamp(10)), ..rule("embargo", Effect::Deny) };
        let rules = Ruleset::new(vec![deny], Effect::Allow, &t).unwrap();
        let at = |now| {
            rules
                .verdict(
                    &t,
                    &VolumeId::new("scans").unwrap(),
                    &FilePath::root(),
                    &SiteId::new("gpu-eu").unwrap(),
                    Timestamp(now),
                )
                .allows()
        };
        assert!(!at(10) && at(11));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let t = topology();
        let twice =
            Ruleset::new(vec![rule("a", Effect::Deny), rule("a", Effect::Allow)], Effect::Allow, &t).unwrap_err();
        assert_eq!(twice, RulesetError::SameName("a".into()));
        let told =
            Ruleset::new(vec![rule("a", Effect::Deny), rule("b", Effect::Allow)], Effect::Allow, &t).unwrap_err();
        assert_eq!(told, RulesetError::Contradiction("a".into(), "b".into()));
        let embargo = Rule { until: Some(Timestamp(10)), ..rule("a", Effect::Deny) };
        assert!(Ruleset::new(vec![embargo, rule("b", Effect::Allow)], Effect::Allow, &t).is_ok());
        let secret = Rule { paths: Some("patients/secret/*".into()), ..rule("b", Effect::Deny) };
        let all = Rule { paths: Some("patients/**".into()), ..rule("a", Effect::Allow) };
        let told = Ruleset::new(vec![all.clone(), secret.clone()], Effect::Allow, &t).unwrap_err();
        assert_eq!(told, RulesetError::Contradiction("a".into(), "b".into()), "the denial would never decide");
        assert!(Ruleset::new(vec![secret, all], Effect::Allow, &t).is_ok(), "the exception first, then the rule");
        let glob = Rule { paths: Some("a[".into()), ..rule("g", Effect::Deny) };
        assert!(matches!(Ruleset::new(vec![glob], Effect::Allow, &t), Err(RulesetError::BadGlob { .. })));
        let site = Rule { sites: vec![SiteId::new("mars").unwrap()], ..rule("s", Effect::Deny) };
        assert!(Ruleset::new(vec![site], Effect::Allow, &t).unwrap_err().to_string().contains("mars"));
    }
}
