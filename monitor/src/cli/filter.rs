//! Filter flags, each of which may be negated by `--not` right before it.

use clap::{
    Arg, ArgAction, ArgMatches, Command, FromArgMatches,
    builder::{PossibleValuesParser, TypedValueParser},
    error::ErrorKind,
};
use monitor_common::classify::App;
use monitor_core::{
    event::{FindingKind, Outcome, Point},
    filter::{Condition, FlowFilter, Term},
};

/// Flags that choose flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FilterArgs(pub(super) FlowFilter);

/// Help heading.
const HEADING: &str = "Filters";
/// Flags with a value, each a kind of [`Condition`].
const VALUES: [&str; 9] = [
    "namespace",
    "pod",
    "ip",
    "port",
    "protocol",
    "app",
    "point",
    "outcome",
    "finding",
];
/// Negates the next filter.
const NOT: &str = "not";
/// All namespaces.
const ALL: &str = "all-namespaces";

fn flag(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name(value)
        .help(help)
        .help_heading(HEADING)
        .action(ArgAction::Append)
}

fn words(names: impl Iterator<Item = &'static str>) -> PossibleValuesParser {
    PossibleValuesParser::new(names.collect::<Vec<_>>())
}

// === impl FilterArgs ===

impl clap::Args for FilterArgs {
    fn augment_args(command: Command) -> Command {
        let read = |text: String| -> Condition { Condition::App(text.to_ascii_lowercase()) };
        let finding = |text: String| -> Condition { Condition::Finding(text.to_ascii_lowercase()) };
        let findings = FindingKind::ALL.iter().map(|kind| kind.name());
        command
            .arg(
                flag("namespace", "NAMESPACE", "An end is in this namespace")
                    .short('n')
                    .value_parser(|text: &str| name(text).map(Condition::Namespace)),
            )
            .arg(
                Arg::new(ALL)
                    .short('A')
                    .long(ALL)
                    .help("Flows of all namespaces (the default)")
                    .help_heading(HEADING)
                    .action(ArgAction::SetTrue),
            )
            .arg(
                flag("pod", "NAMESPACE/NAME", "An end is this pod")
                    .value_parser(|text: &str| text.parse().map(Condition::Pod)),
            )
            .arg(
                flag("ip", "CIDR", "An end's address is in this range").value_parser(Condition::ip),
            )
            .arg(
                flag("port", "PORT", "An end's port")
                    .value_parser(clap::value_parser!(u16).map(Condition::Port)),
            )
            .arg(
                flag(
                    "protocol",
                    "PROTOCOL",
                    "IP protocol: tcp, udp, icmp, … or a number",
                )
                .value_parser(|text: &str| text.parse().map(Condition::Protocol)),
            )
            .arg(
                flag("app", "APP", "Application protocol, by payload")
                    .ignore_case(true)
                    .value_parser(words(App::ALL.into_iter().map(App::name)).map(read)),
            )
            .arg(
                flag("point", "POINT", "Where it was seen: uplink or workload")
                    .value_parser(|text: &str| text.parse::<Point>().map(Condition::Point)),
            )
            .arg(
                flag(
                    "outcome",
                    "OUTCOME",
                    "What became of it: established, refused, unanswered, …",
                )
                .value_parser(|text: &str| text.parse::<Outcome>().map(Condition::Outcome)),
            )
            .arg(
                flag("finding", "FINDING", "Finding on it")
                    .ignore_case(true)
                    .hide_possible_values(true)
                    .value_parser(words(findings).map(finding)),
            )
            .arg(
                Arg::new(NOT)
                    .long(NOT)
                    .help("Negate the next filter")
                    .help_heading(HEADING)
                    .num_args(0)
                    .action(ArgAction::Append)
                    .value_parser(clap::value_parser!(bool))
                    .default_missing_value("true"),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for FilterArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut conditions = Vec::new();
        for id in VALUES {
            let indices = matches.indices_of(id).into_iter().flatten();
            let values = matches.get_many::<Condition>(id).into_iter().flatten();
            conditions.extend(indices.zip(values.cloned()));
        }
        conditions.sort_unstable_by_key(|(index, _)| *index);
        let mut negations: Vec<usize> = matches.indices_of(NOT).into_iter().flatten().collect();
        let terms = conditions
            .into_iter()
            .map(|(index, condition)| {
                // clap numbers flags and values one by one: `--not`, its implied value, the
                // filter's flag, the filter's value.
                let negation = negations.iter().position(|not| not + 2 == index);
                let not = negation
                    .map(|position| negations.swap_remove(position))
                    .is_some();
                Term { not, condition }
            })
            .collect();
        if !negations.is_empty() {
            return Err(clap::Error::raw(
                ErrorKind::WrongNumberOfValues,
                "--not must stand right before the filter that it negates\n",
            ));
        }
        Ok(Self(FlowFilter {
            terms,
            all_namespaces: matches.get_flag(ALL),
            since: None,
        }))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        Err("a name is expected")
    } else {
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use monitor_core::event::Protocol;

    use super::*;

    #[derive(Debug, Parser)]
    struct Args {
        #[arg(short, long)]
        follow: bool,
        #[arg(long)]
        last: Option<usize>,
        #[command(flatten)]
        filter: FilterArgs,
    }

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once("flows").chain(line.split_whitespace()))
    }

    #[track_caller]
    fn check(line: &str, expected: &[(bool, Condition)]) {
        let args = parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let expected: Vec<Term> = expected
            .iter()
            .map(|(not, condition)| Term {
                not: *not,
                condition: condition.clone(),
            })
            .collect();
        assert_eq!(args.filter.0.terms, expected, "{line}");
    }

    fn ip(text: &str) -> Condition {
        Condition::ip(text).expect("an address range")
    }

    #[test]
    fn filters_keep_their_order() {
        check("", &[]);
        check(
            "--port 22 -f --protocol tcp --port=80 --ip 10.0.0.0/8",
            &[
                (false, Condition::Port(22)),
                (false, Condition::Protocol(Protocol::TCP)),
                (false, Condition::Port(80)),
                (false, ip("10.0.0.0/8")),
            ],
        );
        check(
            "--app SSH --point uplink --outcome one-way --pod shop/cart-0 --finding nsg-drift",
            &[
                (false, Condition::App("ssh".to_owned())),
                (false, Condition::Point(Point::Uplink)),
                (false, Condition::Outcome(Outcome::OneWay)),
                (false, Condition::Pod("shop/cart-0".parse().expect("a pod"))),
                (false, Condition::Finding("nsg-drift".to_owned())),
            ],
        );
        assert!(parse("-A -n shop").expect("valid").filter.0.all_namespaces);
    }

    #[test]
    fn not_negates_exactly_the_next_filter() {
        let port = Condition::Port;
        check("--not --port 22", &[(true, port(22))]);
        check(
            "--not --port=22 --port 23",
            &[(true, port(22)), (false, port(23))],
        );
        check(
            "--port 22 --not --port 23",
            &[(false, port(22)), (true, port(23))],
        );
        check(
            "--not --port 22 --port 23 --not --port 24 --not --ip ::1 --port 25",
            &[
                (true, port(22)),
                (false, port(23)),
                (true, port(24)),
                (true, ip("::1")),
                (false, port(25)),
            ],
        );
        let namespace = |name: &str| Condition::Namespace(name.to_owned());
        check(
            "--not -n shop --not -ndb -n=web --follow --last 5 --not --namespace x",
            &[
                (true, namespace("shop")),
                (true, namespace("db")),
                (false, namespace("web")),
                (true, namespace("x")),
            ],
        );
        check(
            "-f --not --app ssh -f".trim_end_matches(" -f"),
            &[(true, Condition::App("ssh".to_owned()))],
        );
    }

    #[test]
    fn not_before_anything_else_is_refused() {
        for line in [
            "--not",
            "--port 22 --not",
            "--not --not --port 22",
            "--not -f --port 22",
            "--not --last 5 --port 22",
            "--not -A --port 22",
            "--not=true --port 22",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains("--not"), "{line}: {error}");
        }
    }

    #[test]
    fn bad_values_are_named() {
        for (line, named) in [
            ("--ip 10.0.0.0/33", "10.0.0.0/33"),
            ("--ip 10.0.0", "10.0.0"),
            ("--port 70000", "70000"),
            ("--protocol tpc", "tpc"),
            ("--outcome nice", "nice"),
            ("--point middle", "middle"),
            ("--app sssh", "sssh"),
            ("--pod cart-0", "cart-0"),
            ("--finding foo", "foo"),
            ("--finding foo", "nsg-drift"),
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(named), "{line}: {error}");
        }
    }
}
