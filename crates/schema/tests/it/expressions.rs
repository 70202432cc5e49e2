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
        "1 + 2 * 3 == 7 && 7 % 4 == 3 && -2 < 1 && 6 / 4 == 1",
        "1 == 1.0 && 1u == 1 && 1 != '1' && 0x10 == 16 && 1.5e1 == 15.0",
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
        "{'a': 1, 'b': 2}.a == 1 && {'a': 1} == {'a': 1.0} && {'a': 1} != {'a': 2}",
        "math.greatest(1, 3, 2) == 3 && math.least([4, 2]) == 2",
        "// a comment\n true",
        "site.sizes[0] == 3 && site['name'] == 'edge-1'",
        "-9223372036854775808 < 0",
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
        ("1 + 'a' == 2", "no such overload"),
        ("site.name && true", "no such overload"),
        ("[].min() == 0", "min called on empty list"),
        ("x == 1", "no such attribute(s): x"),
        ("int('a') == 1", "type conversion error from 'string' to 'int'"),
        ("optional.none().value()", "optional.none() dereference"),
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
