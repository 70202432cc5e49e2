//! Which functions and operators there are, what they take and what they give.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::types::Type;

/// Methods stand behind a dot and take what is before it first. `a|b` is one overload for each; `elem` is the type of
/// the entries of the first argument or of what is optional in it, `same` the type of the first argument.
const TABLE: &str = "
size (string|bytes|list|map) int
.size (string|bytes|list|map) int
type (dyn) type
dyn (dyn) dyn
int (int|uint|double|string|timestamp|duration) int
uint (int|uint|double|string) uint
double (int|uint|double|string) double
string (bool|int|uint|double|string|bytes|timestamp|duration|ip|cidr) string
bool (bool|string) bool
bytes (bytes|string) bytes
duration (duration|string) duration
timestamp (timestamp|string|int) timestamp
.getFullYear (timestamp) int
.getFullYear (timestamp,string) int
.getMonth (timestamp) int
.getMonth (timestamp,string) int
.getDayOfYear (timestamp) int
.getDayOfYear (timestamp,string) int
.getDayOfMonth (timestamp) int
.getDayOfMonth (timestamp,string) int
.getDate (timestamp) int
.getDate (timestamp,string) int
.getDayOfWeek (timestamp) int
.getDayOfWeek (timestamp,string) int
.getHours (timestamp|duration) int
.getHours (timestamp,string) int
.getMinutes (timestamp|duration) int
.getMinutes (timestamp,string) int
.getSeconds (timestamp|duration) int
.getSeconds (timestamp,string) int
.getMilliseconds (timestamp|duration) int
.getMilliseconds (timestamp,string) int
.contains (string,string) bool
.startsWith (string,string) bool
.endsWith (string,string) bool
.matches (string,string) bool
matches (string,string) bool
.find (string,string) string
.findAll (string,string) list<string>
.findAll (string,string,int) list<string>
.replace (string,string,string) string
.replace (string,string,string,int) string
.split (string,string) list<string>
.split (string,string,int) list<string>
.join (list<string>) string
.join (list<string>,string) string
.lowerAscii (string) string
.upperAscii (string) string
.trim (string) string
.substring (string,int) string
.substring (string,int,int) string
.charAt (string,int) string
.indexOf (string,string) int
.indexOf (list,dyn) int
.indexOf (string,string,int) int
.lastIndexOf (string,string) int
.lastIndexOf (list,dyn) int
.lastIndexOf (string,string,int) int
.format (string,list) string
strings.quote (string) string
.reverse (string|list) same
.isSorted (list) bool
.sum (list) elem
.min (list) elem
.max (list) elem
quantity (string) quantity
isQuantity (string) bool
sign (quantity) int
.sign (quantity) int
.isGreaterThan (quantity,quantity) bool
.isGreaterThan (semver,semver) bool
.isLessThan (quantity,quantity) bool
.isLessThan (semver,semver) bool
.compareTo (quantity,quantity) int
.compareTo (semver,semver) int
.add (quantity,quantity|int) quantity
.sub (quantity,quantity|int) quantity
.isInteger (quantity) bool
.asInteger (quantity) int
.asApproximateFloat (quantity) double
semver (string) semver
semver (string,bool) semver
isSemver (string) bool
isSemver (string,bool) bool
.major (semver) int
.minor (semver) int
.patch (semver) int
.scores (dyn,string) list
.parseJSON (string) dyn
optional.none () optional
optional.of (dyn) optional<same>
optional.ofNonZeroValue (dyn) optional<same>
.hasValue (optional) bool
.value (optional) elem
.orValue (optional,dyn) elem
.or (optional,optional) same
sets.contains (list,list) bool
sets.equivalent (list,list) bool
sets.intersects (list,list) bool
math.greatest (dyn...) dyn
math.least (dyn...) dyn
math.abs (int|double) same
math.ceil (dyn) double
math.floor (dyn) double
math.round (dyn) double
isNaN (dyn) bool
math.isNaN (dyn) bool
ip (string) ip
isIP (string) bool
ip.isCanonical (string) bool
.family (ip) int
.isUnspecified (ip) bool
.isLoopback (ip) bool
.isLinkLocalMulticast (ip) bool
.isLinkLocalUnicast (ip) bool
.isGlobalUnicast (ip) bool
cidr (string) cidr
isCIDR (string) bool
.containsIP (cidr,string|ip) bool
.containsCIDR (cidr,string|cidr) bool
.ip (cidr) ip
.prefixLength (cidr) int
.masked (cidr) cidr
url (string) url
isURL (string) bool
.getScheme (url) string
.getHost (url) string
.getHostname (url) string
.getPort (url) string
.getEscapedPath (url) string
.getQuery (url) map<string,list<string>>
format.named (string) optional<format>
format.dns1123Label () format
format.dns1123Subdomain () format
format.dns1035Label () format
format.qualifiedName () format
format.dns1123LabelPrefix () format
format.dns1123SubdomainPrefix () format
format.dns1035LabelPrefix () format
format.labelValue () format
format.uri () format
format.uuid () format
format.byte () format
format.date () format
format.datetime () format
.validate (format,string) optional<list<string>>
_+_ (int,int) int
_+_ (uint,uint) uint
_+_ (double,double) double
_+_ (string,string) string
_+_ (bytes,bytes) bytes
_+_ (list,list) list
_+_ (duration,duration) duration
_+_ (timestamp,duration) timestamp
_+_ (duration,timestamp) timestamp
_-_ (int,int) int
_-_ (uint,uint) uint
_-_ (double,double) double
_-_ (timestamp,timestamp) duration
_-_ (timestamp,duration) timestamp
_-_ (duration,duration) duration
_*_ (int,int) int
_*_ (uint,uint) uint
_*_ (double,double) double
_/_ (int,int) int
_/_ (uint,uint) uint
_/_ (double,double) double
_%_ (int,int) int
_%_ (uint,uint) uint
_<_ (bool,bool) bool
_<_ (int|uint|double,int|uint|double) bool
_<_ (string,string) bool
_<_ (bytes,bytes) bool
_<_ (timestamp,timestamp) bool
_<_ (duration,duration) bool
-_ (int|double) same
";

/// The most arguments of a function that takes any number of them.
const MOST_ARGUMENTS: usize = 8;

#[derive(Debug)]
struct Overload {
    is_method: bool,
    arguments: Vec<Type>,
    takes_more: bool,
    result: &'static str,
}

impl Overload {
    fn takes_count(&self, count: usize) -> bool {
        if self.takes_more { (1..=MOST_ARGUMENTS).contains(&count) } else { self.arguments.len() == count }
    }

    fn takes(&self, given: &[Type]) -> bool {
        self.takes_count(given.len())
            && (self.takes_more || self.arguments.iter().zip(given).all(|(own, given)| own.fits(given)))
    }
}

static OVERLOADS: LazyLock<HashMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let mut overloads: HashMap<&'static str, Vec<Overload>> = HashMap::new();
    for line in TABLE.lines() {
        let mut words = line.split(' ');
        let (Some(name), Some(arguments), Some(result)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let arguments = arguments.trim_matches(['(', ')']);
        let takes_more = arguments.ends_with("...");
        let choices = arguments.split(',').filter(|argument| !argument.is_empty() && !takes_more);
        let mut lists: Vec<Vec<Type>> = vec![vec![]];
        for choice in choices {
            let with = |list: &Vec<Type>| {
                choice
                    .split('|')
                    .map(|word| [list.as_slice(), &[Type::named(word)]].concat())
                    .collect::<Vec<_>>()
            };
            lists = lists.iter().flat_map(with).collect();
        }
        let own = lists.into_iter().map(|arguments| Overload {
            is_method: name.starts_with('.'),
            arguments,
            takes_more,
            result,
        });
        overloads.entry(name.trim_start_matches('.')).or_default().extend(own);
    }
    overloads
});

fn named(name: &str) -> &'static [Overload] {
    OVERLOADS.get(name).map_or(&[], Vec::as_slice)
}

/// What a function gives, and whether that is only known when it is called.
#[derive(Debug)]
pub struct Resolved {
    pub result: Type,
    pub is_dynamic: bool,
}

/// The overloads that take arguments of these types; nothing where none does.
pub fn resolve(name: &str, is_method: bool, given: &[Type]) -> Option<Resolved> {
    let mut fitting = named(name).iter().filter(|own| own.is_method == is_method && own.takes(given));
    let mut result = result_of(fitting.next()?, given);
    let mut is_dynamic = false;
    for other in fitting {
        is_dynamic = true;
        if result_of(other, given) != result {
            result = Type::Dyn;
        }
    }
    Some(Resolved { result, is_dynamic })
}

fn result_of(overload: &Overload, given: &[Type]) -> Type {
    let first = given.first().cloned().unwrap_or(Type::Dyn);
    match overload.result {
        "same" => first,
        "optional<same>" => Type::Optional(Box::new(first)),
        "elem" => match first {
            Type::List(entry) | Type::Optional(entry) => *entry,
            _ => Type::Dyn,
        },
        word => Type::named(word),
    }
}

pub fn is_known(name: &str, is_method: bool, arguments: usize) -> bool {
    let count = arguments + usize::from(is_method);
    named(name).iter().any(|own| own.is_method == is_method && own.takes_count(count))
}

pub fn is_name(name: &str) -> bool {
    OVERLOADS.contains_key(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_types_of_the_table_are_known() {
        for line in TABLE.lines().filter(|line| !line.is_empty()) {
            let (_, types) = line.split_once(' ').unwrap();
            for word in types.split([' ', '(', ')', ',', '|', '<', '>']) {
                let is_said = matches!(word, "" | "dyn" | "dyn..." | "same" | "elem");
                assert!(is_said || Type::named(word) != Type::Dyn, "{line}: {word}");
            }
        }
    }

    #[test]
    fn overloads_are_found_by_types() {
        let found = resolve("_+_", false, &[Type::Dyn, Type::named("string")]).unwrap();
        assert_eq!((found.result, found.is_dynamic), (Type::named("string"), false));
        assert!(resolve("_+_", false, &[Type::Dyn, Type::Dyn]).unwrap().is_dynamic);
        assert!(resolve("_+_", false, &[Type::named("int"), Type::named("string")]).is_none());
        let list = Type::List(Box::new(Type::named("int")));
        assert_eq!(resolve("max", true, &[list]).unwrap().result, Type::named("int"));
    }
}
