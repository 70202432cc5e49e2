//! The expression language alone.

use avocet_schema::cel::{EVALUATION_BUDGET, EvaluationError, Expression, Value};
use serde_json::json;

fn evaluated(source: &str) -> Result<bool, String> {
    let variables =
        json!({"name": "edge-1", "labels": {"tier": "edge"}, "sizes": [3, 1, 2], "ratio": 0.5, "none": null});
    let expression = Expression::compile(source, &["site", "x"]).map_err(|error| error.to_string())?;
    let mut budget = EVALUATION_BUDGET;
    let value = expression
        .evaluate(&[("site", Value::from(&variables))], &mut budget)
        .map_err(|error| error.to_string())?;
    value.as_bool().ok_or_else(|| format!("not a bool: {value:?}"))
}

#[test]
fn expressions_that_hold() {
    for source in [
        "double('0x1.8p+3') == 12.0 && double('-0x_1p-2') == -0.25 && double('inf') > 1e308 && uint('7') == 7u",
        "1 + 2 * 3 == 7 && 7 % 4 == 3 && -2 < 1 && 6 / 4 == 1",
        "dyn(1) == 1.0 && dyn(1u) == 1 && dyn(1) != '1' && 0x10 == 16 && 1.5e1 == 15.0",
        "'a' + \"b\" == 'ab' && r'\\d' == '\\\\d' && '\\u00e9' == 'é' && '''x''' == 'x'",
        "true ? true : 1 / 0 == 0",
        "1 / 0 == 0 || true",
        "!(1 / 0 == 0 && false)",
        "site.labels['tier'] == 'edge' && 'tier' in site.labels && !('x' in site.labels)",
        "has(site.name) && !has(site.nothing) && site.none == null",
        "site.sizes.all(s, s > 0) && site.sizes.exists(s, s == 2) && site.sizes.exists_one(s, s == 3)",
        "site.sizes.map(s, s * 2) == [6, 2, 4] && site.sizes.filter(s, s > 1) == [3, 2]",
        "site.sizes.map(s, s > 1, s + 1) == [4, 3]",
        "site.labels.all(key, site.labels[key] == 'edge')",
        "[[1], [2]].all(xs, xs.all(x, x > 0))",
        "site.sizes.sum() == 6 && site.sizes.min() == 1 && site.sizes.max() == 3 && !site.sizes.isSorted()",
        "site.sizes.indexOf(1) == 1 && [1, 1].lastIndexOf(1) == 1 && [].sum() == 0",
        "site.name.matches('^edge-[0-9]+$') && site.name.find('[0-9]') == '1' && 'a1b2'.findAll('[0-9]') == ['1', '2']",
        "'a,b'.split(',') == ['a', 'b'] && ['a', 'b'].join('-') == 'a-b' && 'aXa'.replace('a', 'b', 1) == 'bXa'",
        "' A '.trim().lowerAscii() == 'a' && 'héllo'.substring(1, 3) == 'él' && 'héllo'.charAt(1) == 'é'",
        "'héllo'.indexOf('l') == 2 && 'héllo'.lastIndexOf('l') == 3 && size('héé') == 3 && 'abc'.size() == 3",
        "'abc'.startsWith('a') && 'abc'.endsWith('c') && 'abc'.contains('b')",
        "int('5') == 5 && double('0.5') == site.ratio && string(5) == '5' && string(1.0) == '1' && bool('true')",
        "type(1) == int && type('') == string && type(null) == null_type",
        "quantity('1Gi').isGreaterThan(quantity('1000M')) && quantity('500m').compareTo(quantity('0.5')) == 0",
        "quantity('50k').add(20).sub(quantity('20')) == quantity('50k') && !isQuantity('1 GB')",
        "quantity('2').asInteger() == 2 && quantity('200m').asApproximateFloat() == 0.2",
        "sets.contains([1, 2], [2]) && sets.intersects([1], [1, 2]) && sets.equivalent([1, 1], [1])",
        "site.?nothing.orValue('x') == 'x' && site.?name.hasValue() && site.labels[?'tier'].value() == 'edge'",
        "optional.of(1).optMap(v, v + 1).orValue(0) == 2 && !optional.none().hasValue()",
        "{'a': 1, 'b': 2}.a == 1 && {'a': 1} == dyn({'a': 1.0}) && {'a': 1} != {'a': 2}",
        "math.greatest(1, 3, 2) == 3 && math.least([4, 2]) == 2",
        "// a comment\n true",
        "site.sizes[0] == 3 && site['name'] == 'edge-1'",
        "-9223372036854775808 < 0",
        "'abc'.indexOf('z', 9) == -1 && 'abc'.indexOf('', 9) == 3 && 'abc'.lastIndexOf('z', 9) == -1",
        "'aaa'.lastIndexOf('aa', 1) == 1 && 'abc'.lastIndexOf('', 9) == 3 && 'ééé'.lastIndexOf('é', 1) == 1",
        "'%s %d %f %e %b %x %X %o %%'.format(['a', 1, 2.5, 12345.678, 5, 255, 'hi', 8]) == 'a 1 2.500000 1.234568e+04 101 ff 6869 10 %'",
        "'%s'.format([[1, 'a', null, {'k': 1.5, 'b': true}]]) == '[1, a, null, {b: true, k: 1.5}]'",
        "'%.2f %s %s'.format([1.5, duration('90s'), type(1)]) == '1.50 90s int'",
        "strings.quote('a\\n\"b') == '\"a\\\\n\\\\\"b\"'",
        "url('https://u@example.com:80/a b/?k=a&k=b#f').getEscapedPath() == '/a%20b/'",
        "url('https://[::1]:80/?k=a&k=b').getQuery()['k'] == ['a', 'b'] && url('https://[::1]:80/').getHostname() == '::1'",
        "isURL('/a') && !isURL('../a') && url('https://a:1/').getPort() == '1' && url('//a/b').getHost() == 'a'",
        "ip('::1').family() == 6 && ip('::1').isLoopback() && !isIP('::ffff:1.2.3.4') && !isIP('fe80::1%eth0')",
        "ip('224.0.0.1').isLinkLocalMulticast() && !ip('255.255.255.255').isGlobalUnicast() && ip('0.0.0.0').isUnspecified()",
        "!ip.isCanonical('2001:DB8::1') && string(ip('2001:DB8::1')) == '2001:db8::1'",
        "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && !cidr('10.0.0.0/16').containsCIDR('10.0.0.0/8')",
        "cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && cidr('::/0').containsIP(ip('::1')) && !cidr('::/0').containsIP('1.2.3.4')",
        "!isCIDR('10.0.0.0/33') && !isCIDR('10.0.0.0/08') && cidr('10.0.0.0/8').prefixLength() == 8",
        "timestamp('2022-03-04T05:06:07.089Z').getMonth() == 2 && timestamp('2022-03-04T05:06:07Z').getDate() == 4",
        "timestamp('2022-03-04T05:06:07Z').getDayOfYear() == 62 && timestamp('2022-03-04T05:06:07Z').getDayOfWeek() == 5",
        "timestamp('2022-03-04T05:06:07Z').getHours('America/New_York') == 0 && timestamp('2022-03-04T05:06:07Z').getHours('+02:30') == 7",
        "timestamp(0) + duration('1h') == timestamp('1970-01-01T01:00:00Z') && int(timestamp('1970-01-01T01:00:00Z')) == 3600",
        "timestamp('1970-01-01T01:00:00Z') - timestamp(0) == duration('3600s') && string(duration('1h1m1.5s')) == '3661.5s'",
        "duration('1h30m').getMinutes() == 90 && [duration('1h'), duration('2h')].sum() == duration('3h')",
        "b'\\xff\\000'.size() == 2 && b'é' == b'\\xc3\\xa9' && bytes('é') == b'é' && string(b'é') == 'é' && b'a' + b'b' == b'ab' && b'a' < b'b'",
        "'[1, {\"a\": [true, \"x\"]}]'.parseJSON()[1].a[1] == 'x' && type('1'.parseJSON()) == double",
        "format.dns1123Label().validate('a') == optional.none() && format.dns1123Label().validate('a-').hasValue()",
        "format.dns1123LabelPrefix().validate('a-') == optional.none() && format.qualifiedName().validate('a.b/c') == optional.none()",
        "format.qualifiedName().validate('/c').value() == ['prefix part must be non-empty'] && format.named('nope') == optional.none()",
        "format.named('uuid').value().validate('x').value() == ['does not match the UUID format']",
        "sign(quantity('-1')) == -1 && quantity('1') != null && dyn(1) == 1.0 && (true ? 1 : dyn('a')) == 1",
    ] {
        assert_eq!(evaluated(source), Ok(true), "{source}");
    }
}

#[test]
fn failures_are_told_as_cel_tells_them() {
    for (source, problem) in [
        ("site.missing == 1", "no such key: missing"),
        ("site.sizes[5] == 1", "index out of bounds: 5"),
        ("1 / 0 == 0", "division by zero"),
        ("1 % 0 == 0", "modulus by zero"),
        ("9223372036854775807 + 1 == 0", "integer overflow"),
        ("-(-9223372036854775808) == 0", "integer overflow"),
        ("0u - 1u == 0u", "unsigned integer overflow"),
        ("1 + dyn('a') == 2", "no such overload"),
        ("site.name && true", "no such overload"),
        ("[].min() == 0", "min called on empty list"),
        ("x == 1", "no such attribute(s): x"),
        ("int('a') == 1", "type conversion error from 'string' to 'int'"),
        ("optional.none().value()", "optional.none() dereference"),
        ("'abc'.indexOf('b', -1) == 1", "index out of range: -1"),
        ("duration('1d') == duration('24h')", "type conversion error from 'string' to 'duration'"),
        (
            "timestamp('2022-01-01 00:00:00Z') == timestamp(0)",
            "type conversion error from 'string' to 'timestamp'",
        ),
        ("duration('2562047h') + duration('1h') == duration('0')", "integer overflow"),
        ("string(b'\\xff') == ''", "invalid UTF-8 in bytes, cannot convert to string"),
        ("'{'.parseJSON() == 1", "failed to parse json: EOF while parsing an object at line 1 column 1"),
        ("'%s %s'.format(['a']) == ''", "index 1 out of range"),
        ("'%d'.format(['a']) == ''", "error during formatting: %d does not take a string"),
        ("ip('1.2.3') == ip('1.2.3.4')", "IP Address \"1.2.3\" parse error during conversion from string"),
        ("site.sizes.all(s, s.x == 1)", "no such overload"),
    ] {
        assert_eq!(evaluated(source), Err(problem.into()), "{source}");
    }
}

#[test]
fn what_is_no_expression_is_refused_where_it_goes_wrong() {
    for (source, problem) in [
        ("", "ERROR: <input>:1:1: Syntax error: mismatched input '<EOF>'"),
        ("1 +", "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>'"),
        ("(1", "ERROR: <input>:1:3: Syntax error: unexpected '<EOF>', expecting ')'"),
        ("foo", "ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')"),
        ("true && bar(1)", "ERROR: <input>:1:14: undeclared reference to 'bar' (in container '')"),
        ("size(1, 2)", "ERROR: <input>:1:10: found no matching overload for 'size'"),
        ("'a", "ERROR: <input>:1:1: unterminated string"),
        ("1 # 2", "ERROR: <input>:1:3: token recognition error at: '#'"),
        ("has(site)", "ERROR: <input>:1:10: invalid argument to has() macro"),
        (
            "site.name.matches('(')",
            "ERROR: <input>:1:23: invalid matches argument: error parsing regexp: error: unclosed group",
        ),
    ] {
        assert_eq!(evaluated(source), Err(problem.into()), "{source}");
    }
}

#[test]
fn what_no_overload_takes_is_refused_beforehand() {
    for (source, problem) in [
        ("1 == 1.0", "1:3: found no matching overload for '_==_' applied to '(int, double)'"),
        ("true && 'a' < 1", "1:13: found no matching overload for '_<_' applied to '(string, int)'"),
        ("1 && true", "1:1: found no matching overload for '_&&_' applied to '(int, bool)'"),
        ("!5", "1:1: found no matching overload for '!_' applied to '(int)'"),
        ("5 ? true : false", "1:3: found no matching overload for '_?_:_' applied to '(int, bool, bool)'"),
        ("null == 1", "1:6: found no matching overload for '_==_' applied to '(null, int)'"),
        ("size(5) > 1", "1:1: found no matching overload for 'size' applied to '(int)'"),
        ("'a'.b == 1", "1:4: type 'string' does not support field selection"),
        (
            "[1, 2].exists(x, x > 'a')",
            "1:20: found no matching overload for '_>_' applied to '(int, string)'",
        ),
        ("site.name.matches(1)", "1:10: found no matching overload for 'matches' applied to 'dyn.(int)'"),
        ("[1] == ['a']", "1:5: found no matching overload for '_==_' applied to '(list(int), list(string))'"),
    ] {
        assert_eq!(evaluated(source), Err(format!("ERROR: <input>:{problem}")), "{source}");
    }
    let over_object = |source| Expression::compile_over_object(source, "site").map(|_| ());
    assert!(over_object("site.exists(x, x > 1)").is_err());
    assert!(over_object("site && true").is_err());
    assert!(over_object("site.labels > 1 && site.labels == 'a'").is_ok());
}

#[test]
fn little_is_counted_for_much_work_only_up_to_a_limit() {
    // Each costs one step and doubles the list.
    let doubled = "[[1, 2, 3, 4]]".to_owned() + &".map(l, l + l)".repeat(40) + " == []";
    assert_eq!(evaluated(&doubled), Err(EvaluationError::OutOfBudget.to_string()));
    let json = format!("site.x.map(n, '[{}]'.parseJSON()).size() == 9", "0,".repeat(4000) + "0");
    let many = json!({"x": vec![0; 1000]});
    let expression = Expression::compile(&json, &["site"]).unwrap();
    let outcome = expression.evaluate(&[("site", Value::from(&many))], &mut EVALUATION_BUDGET.clone());
    assert_eq!(outcome.map(|_| ()), Err(EvaluationError::OutOfBudget));
    let long = json!({"x": format!("[{}]", "0,".repeat(600_000) + "0")});
    let expression = Expression::compile("site.x.parseJSON() == []", &["site"]).unwrap();
    let outcome = expression.evaluate(&[("site", Value::from(&long))], &mut EVALUATION_BUDGET.clone());
    assert_eq!(
        outcome.map(|_| ()),
        Err(EvaluationError::Failed("failed to parse json: 1200003 bytes, at most 1048576 are taken".into()))
    );
    let pattern = "[1, 2].all(n, site.name.matches('[a-z]{100}' + string(n)))";
    let mut budget = 1000;
    let site = json!({"name": "a"});
    let expression = Expression::compile(pattern, &["site"]).unwrap();
    let outcome = expression.evaluate(&[("site", Value::from(&site))], &mut budget);
    assert_eq!(outcome.map(|_| ()), Err(EvaluationError::OutOfBudget));
}

#[test]
fn length_depth_and_cost_are_bounded() {
    let long = format!("'{}' == ''", "a".repeat(20_000));
    assert!(evaluated(&long).unwrap_err().contains("exceeds limit"));
    for deep in [
        format!("{}1{}", "(".repeat(4000), ")".repeat(4000)),
        format!("{}true", "!".repeat(4000)),
        format!("1{}", "+1".repeat(4000)),
        format!("site{}", ".a".repeat(4000)),
        format!("{}1", "true ? 1 : ".repeat(800)),
        format!("{}1{}", "[".repeat(4000), "]".repeat(4000)),
    ] {
        assert!(evaluated(&deep).unwrap_err().contains("recursion limit exceeded"));
    }
    assert_eq!(evaluated(&format!("true{}", " && true".repeat(1000))), Ok(true));
    let list = format!("{:?}", [1; 100]);
    let costly = format!("{list}.all(a, {list}.all(b, {list}.all(c, {list}.all(d, true))))");
    let expression = Expression::compile(&costly, &[]).unwrap();
    let mut budget = EVALUATION_BUDGET;
    assert_eq!(expression.evaluate(&[], &mut budget).map(|_| ()), Err(EvaluationError::OutOfBudget));
    assert_eq!(budget, 0);
    let growing = "[1,1,1,1,1,1,1,1].map(a, 'aaaaaaaaaa'.replace('a', 'bbbbbbbbbb').replace('b', 'cccccccccc')\
                   .replace('c', 'dddddddddd').replace('d', 'eeeeeeeeee').replace('e', 'ffffffffff')\
                   .replace('f', 'gggggggggg').replace('g', 'hhhhhhhhhh').replace('h', 'iiiiiiiiii')).size() == 1";
    assert_eq!(evaluated(growing), Err(EvaluationError::OutOfBudget.to_string()));
}

#[test]
fn expressions_know_the_variables_they_use() {
    let expression = Expression::compile("self.all(oldSelf, oldSelf > 1)", &["self", "oldSelf"]).unwrap();
    assert!(expression.mentions("self"));
    assert!(!expression.mentions("oldSelf"), "a variable of its own is not one from outside");
}

/// As `strconv` has it, which real CEL reads texts with.
#[test]
fn numbers_that_go_does_not_read_are_no_numbers() {
    for source in ["double('1e999') > 0.0", "double('-nan') > 0.0", "double('0x1') > 0.0", "uint('+7') == 7u"]
    {
        let problem = evaluated(source).unwrap_err();
        assert!(problem.contains("type conversion error"), "{source}: {problem}");
    }
    assert!(evaluated("1e999 > 0.0").unwrap_err().contains("invalid double literal"));
}
