//! Lists of processors and memory nodes: `0-3,7`.

/// The numbers of a list, ascending, each once; none for an empty text. As runc, blanks around a part and empty parts
/// are no mistake, but a list of nothing else is.
///
/// # Errors
/// What is wrong with the text, or the number that is not below `limit`.
pub fn parse(text: &str, limit: usize) -> Result<Vec<usize>, String> {
    let mut numbers = Vec::new();
    if text.is_empty() {
        return Ok(numbers);
    }
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first, limit)?, number(last, limit)?);
        if first > last {
            return Err(format!("invalid range: {part}"));
        }
        numbers.extend(first..=last);
    }
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.is_empty() {
        return Err(format!("no members found in set {text:?}"));
    }
    Ok(numbers)
}

fn number(text: &str, limit: usize) -> Result<usize, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    let number: usize = number.ok_or_else(|| format!("{text:?} is not a number"))?;
    if number < limit {
        Ok(number)
    } else {
        Err(format!(
            "values larger than {} are not supported",
            limit - 1
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_single_numbers_are_one_ascending_list() {
        for (text, expected) in [
            ("", vec![]),
            ("0", vec![0]),
            ("7,0-3", vec![0, 1, 2, 3, 7]),
            (" 1 , ,2-2,", vec![1, 2]),
            ("0-2,1-3,3", vec![0, 1, 2, 3]),
            ("63", vec![63]),
        ] {
            assert_eq!(parse(text, 64).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in [
            ",",
            " ",
            "a",
            "-1",
            "1-",
            "-",
            "3-1",
            "+1",
            "1 - 2",
            "64",
            "0-64",
            "0x1",
            "1-2-3",
            "99999999999999999999999",
        ] {
            assert!(parse(text, 64).is_err(), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_sorted_list_below_the_limit_or_an_error(text in "[0-9, -]{0,12}|.{0,8}") {
            if let Ok(numbers) = parse(&text, 100) {
                proptest::prop_assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
                proptest::prop_assert!(numbers.iter().all(|number| *number < 100));
            }
        }

        #[test]
        fn a_written_list_is_read_back(numbers in proptest::collection::btree_set(0_usize..500, 1..20)) {
            let numbers: Vec<usize> = numbers.into_iter().collect();
            let text: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            proptest::prop_assert_eq!(parse(&text.join(","), 500).unwrap(), numbers);
        }
    }
}
