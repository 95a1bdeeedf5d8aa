//! What rules that may match can come to.
//!
//! What nobody knows is a question with two answers: whether a tag holds an address, whether `*`
//! holds a protocol. Several rules may ask the same. A verdict is certain where all answers lead
//! to the same access, however many rules they leave open.
//!
//! A rule matches when each of its fields has a question that is answered with yes; so a rule
//! decides under some answers if it does when just enough of its own questions are answered with
//! yes, and all others with no.

use super::{
    level::{Hit, LevelKind},
    matching::Question,
    model::RuleAccess,
    tuple::Tuple,
};

/// Rules of one place that may match, beyond which nobody is asked what they can come to.
const MOST_RULES: usize = 64;
/// Combinations of rules and answers, likewise.
const MOST_STEPS: u32 = 4_096;

/// What can become of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcomes {
    pub(super) allow: bool,
    pub(super) deny: bool,
    /// No rule decides, or there are too many answers.
    pub(super) unknown: bool,
}

/// What a place does where none of its rules matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// The next place is asked: admin rules, and groups that say nothing about a platform service.
    Next,
    /// Nobody knows: a group has a rule for everything. Another place may still deny.
    Unknown,
}

/// The rules of a place that may match, first asked first.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) kind: LevelKind,
    pub(super) rules: Vec<Hit<'a>>,
    pub(super) otherwise: Otherwise,
}

/// Answers that are yes, as bits.
type Answers = u64;
/// For each field of a rule, the questions of which one must be answered with yes.
type Needs = Vec<Answers>;

/// A place's rules with what each needs; a rule that needs nothing matches for certain.
struct Asked {
    rules: Vec<(RuleAccess, Needs)>,
    otherwise: Otherwise,
}

struct Walk<'a> {
    places: &'a [Asked],
    found: Outcomes,
    steps: u32,
}

/// What places, asked one after the other, can do with a packet. `for_service` where only rules
/// that name a platform service are asked.
pub(super) fn outcomes(places: &[Place<'_>], tuple: &Tuple, for_service: bool) -> Outcomes {
    let unknown = Outcomes {
        unknown: true,
        ..Outcomes::default()
    };
    if places.iter().any(|place| place.rules.len() > MOST_RULES) {
        return unknown;
    }
    let mut questions: Vec<Question> = Vec::new();
    let mut asked = Vec::with_capacity(places.len());
    for place in places {
        let mut rules = Vec::with_capacity(place.rules.len());
        for hit in &place.rules {
            let mut needs = Needs::new();
            for field in hit.rule.questions(tuple, for_service) {
                let mut need = 0;
                for question in field {
                    let known = questions.iter().position(|known| *known == question);
                    let at = known.unwrap_or_else(|| {
                        questions.push(question);
                        questions.len() - 1
                    });
                    if at >= 64 {
                        return unknown;
                    }
                    need |= 1 << at;
                }
                needs.push(need);
            }
            rules.push((hit.rule.rule.access, needs));
        }
        asked.push(Asked {
            rules,
            otherwise: place.otherwise,
        });
    }
    let mut walk = Walk {
        places: &asked,
        found: Outcomes::default(),
        steps: 0,
    };
    walk.place(0, 0, false, &mut Vec::new());
    if walk.steps > MOST_STEPS {
        return unknown;
    }
    walk.found
}

// === impl Outcomes ===

impl Outcomes {
    /// What certainly becomes of the packet; whether it may pass.
    pub(super) const fn certain(self) -> Option<bool> {
        match (self.allow, self.deny, self.unknown) {
            (true, false, false) => Some(true),
            (false, true, false) => Some(false),
            _ => None,
        }
    }
}

// === impl Place ===

impl<'a> Place<'a> {
    /// What the place does, where that is the same whichever rule matches.
    pub(super) fn access(&self) -> Option<RuleAccess> {
        let last = self.rules.last()?;
        let is_same = |hit: &Hit<'_>| hit.rule.rule.access == last.rule.rule.access;
        let access = last.rule.rule.access;
        let is_closed = match self.otherwise {
            Otherwise::Unknown => last.is_certain,
            Otherwise::Next => last.is_certain || access == RuleAccess::Allow,
        };
        (is_closed && self.rules.iter().all(is_same)).then_some(access)
    }

    /// The rule that stands for the place: the first that may match, or the certain one where all
    /// do the same.
    pub(super) fn hit(&self) -> Option<Hit<'a>> {
        let access = self.access();
        let certain = || self.rules.last().filter(|last| last.is_certain);
        let hit = match access {
            Some(_) if self.rules.len() > 1 => certain().or(self.rules.first()),
            _ => self.rules.first(),
        };
        hit.map(|hit| Hit {
            is_certain: hit.is_certain && self.rules.len() == 1,
            access,
            ..*hit
        })
    }
}

// === impl Walk ===

impl<'a> Walk<'a> {
    fn is_done(&self) -> bool {
        let Outcomes {
            allow,
            deny,
            unknown,
        } = self.found;
        unknown || (allow && deny) || self.steps > MOST_STEPS
    }

    /// Asks a place and those after it, where these answers are yes and these rules do not match.
    /// `is_lost` where a place before had no rule: then a later one can only deny.
    fn place(&mut self, at: usize, yes: Answers, is_lost: bool, passed: &mut Vec<&'a [Answers]>) {
        let places: &'a [Asked] = self.places;
        let Some(place) = places.get(at) else {
            if is_lost {
                self.found.unknown = true;
            } else {
                self.found.allow = true;
            }
            return;
        };
        let before = passed.len();
        let mut is_decided = false;
        for (access, needs) in &place.rules {
            if self.is_done() {
                break;
            }
            // What is known to happen is not looked for again.
            let is_news = match access {
                RuleAccess::Deny => !self.found.deny,
                RuleAccess::AlwaysAllow => !self.found.allow,
                RuleAccess::Allow => true,
            };
            let more = if is_news {
                choices(needs, yes)
            } else {
                Vec::new()
            };
            for more in more {
                self.steps += 1;
                if self.is_done() {
                    break;
                }
                if passed.iter().any(|other| holds(other, more)) {
                    continue;
                }
                match access {
                    RuleAccess::Deny => self.found.deny = true,
                    RuleAccess::AlwaysAllow => self.found.allow = true,
                    RuleAccess::Allow => self.place(at + 1, more, is_lost, passed),
                }
            }
            // With what is known it matches for certain: no rule after it is asked.
            if holds(needs, yes) {
                is_decided = true;
                break;
            }
            passed.push(needs);
        }
        if !is_decided && !self.is_done() {
            let is_lost = is_lost || place.otherwise == Otherwise::Unknown;
            self.place(at + 1, yes, is_lost, passed);
        }
        passed.truncate(before);
    }
}

/// Whether a rule matches where just these answers are yes.
fn holds(needs: &[Answers], yes: Answers) -> bool {
    needs.iter().all(|need| need & yes != 0)
}

/// The smallest sets of answers with which a rule matches, each with those that are yes already.
fn choices(needs: &[Answers], yes: Answers) -> Vec<Answers> {
    let mut sets = vec![yes];
    for need in needs {
        let mut next = Vec::new();
        for set in sets {
            if set & need != 0 {
                next.push(set);
                continue;
            }
            let mut left = *need;
            while left != 0 && next.len() < MOST_STEPS as usize {
                let bit = left & left.wrapping_neg();
                left ^= bit;
                next.push(set | bit);
            }
        }
        next.sort_unstable();
        next.dedup();
        sets = next;
    }
    sets
}
