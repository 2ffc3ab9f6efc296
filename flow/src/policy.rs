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
    /// May be there.
    Allow,
    /// May not.
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
    /// Whether the bytes may be there.
    pub effect: Effect,
    /// The rule that decided; none if the volume's default did.
    pub rule: Option<String>,
}

impl Verdict {
    /// Whether the bytes may be there.
    pub fn allows(&self) -> bool {
        self.effect == Effect::Allow
    }
}

/// Why rules were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesetError {
    /// Two rules share a name, so a refusal could not say which.
    #[error("two rules are named {0:?}: give each its own name")]
    SameName(String),
    /// Two rules match the same and say the opposite, so the second can never decide.
    #[error("rules {0:?} and {1:?} match the same, but one allows and the other denies: remove one of them")]
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
            if let Some((other, _)) = compiled.iter().find(|(r, _)| r.effect != rule.effect && matches_alike(r, &rule))
            {
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
                && glob.as_ref().is_none_or(|g| g.is_match(os_path(path)))
                && names_site(rule, site, destination)
        });
        match decided {
            Some((rule, _)) => Verdict { effect: rule.effect, rule: Some(rule.name.clone()) },
            None => Verdict { effect: self.default, rule: None },
        }
    }
}

/// Whether two rules match the same, now and for ever.
fn matches_alike(a: &Rule, b: &Rule) -> bool {
    a.until.is_none() && Rule { name: b.name.clone(), effect: b.effect, ..a.clone() } == *b
}

fn names_site(rule: &Rule, site: &SiteId, destination: Option<&Site>) -> bool {
    let jurisdiction = destination.map_or("", |s| s.jurisdiction.as_str());
    let within = |list: &[String]| list.iter().any(|j| j == jurisdiction);
    (rule.sites.is_empty() || rule.sites.contains(site))
        && (rule.jurisdictions.is_empty() || within(&rule.jurisdictions))
        && (rule.outside_jurisdictions.is_empty() || !within(&rule.outside_jurisdictions))
}

fn os_path(path: &FilePath) -> &std::path::Path {
    use std::os::unix::ffi::OsStrExt;
    std::path::Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()))
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
                crate::Volume { at: id("store"), tags: [("class".into(), "phi".into())].into() },
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
        let glob = Rule { paths: Some("a[".into()), ..rule("g", Effect::Deny) };
        assert!(matches!(Ruleset::new(vec![glob], Effect::Allow, &t), Err(RulesetError::BadGlob { .. })));
        let site = Rule { sites: vec![SiteId::new("mars").unwrap()], ..rule("s", Effect::Deny) };
        assert!(Ruleset::new(vec![site], Effect::Allow, &t).unwrap_err().to_string().contains("mars"));
    }
}
