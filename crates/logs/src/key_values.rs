//! Keys and values in a line of text that follows no template: `Epoch 3/50 | loss: 0.41 val_dice=0.7 lr=1e-4`.
//!
//! One pass over the bytes, with look-ahead of bounded length only, so that the time is linear in the length of the line. A
//! key is a run of words separated by single spaces; anything else ends it. After `:` or `=` any number is its value; without
//! them only where the words name a measurement or a position, since prose has numbers too.

use trimtab_signals::names;

/// Bytes of a line that are looked at: longer ones are dumps.
const LONGEST_LINE: usize = 1 << 16;
/// Items taken from a line.
const MOST_ITEMS: usize = 512;
/// Words of a key; more are prose.
const MOST_WORDS: usize = 6;
/// Numbers of a list that is a measurement for each class; longer lists are tensors.
const MOST_NUMBERS: usize = 128;
/// Longest quoted key, and longest label in brackets.
const LONGEST_LABEL: usize = 80;

/// One thing found in a line. Keys are slices of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item<'a> {
    /// Words without a value: `Validating`, `Test set`.
    Words(&'a str),
    /// A number and the words that name it.
    Number(Number<'a>),
    /// Several numbers of one key: `Dice: [0.87, 0.81]`.
    List {
        /// The words before it.
        key: &'a str,
        /// What it holds.
        values: Vec<f64>,
    },
    /// A key whose value is text: `optimizer: adam`.
    Text {
        /// The words before the separator.
        key: &'a str,
        /// The words after it.
        value: &'a str,
    },
}

/// A number with what stands around it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Number<'a> {
    /// The words before it; empty where there are none.
    pub(crate) key: &'a str,
    /// Whether a `:` or `=` stands between.
    pub(crate) separated: bool,
    /// The number.
    pub(crate) value: f64,
    /// The number in parentheses after it: `0.41 (0.43)`, by custom the mean so far.
    pub(crate) average: Option<f64>,
    /// The total of `3/50`.
    pub(crate) total: Option<f64>,
    /// A counter in brackets that follows: the `[10/390]` of `Epoch: [3][10/390]`.
    pub(crate) counter: Option<(f64, Option<f64>)>,
    /// Whether it is the count of a progress bar.
    pub(crate) bar: bool,
    /// Whether the line starts with it.
    pub(crate) leading: bool,
}

/// What a line holds, in order.
pub(crate) fn scan(line: &str) -> Vec<Item<'_>> {
    let mut end = line.len().min(LONGEST_LINE);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    let line = &line[..end];
    let mut scanner = Scanner { line, bytes: line.as_bytes(), ..Scanner::default() };
    scanner.run();
    scanner.items
}

#[derive(Default)]
struct Scanner<'a> {
    line: &'a str,
    bytes: &'a [u8],
    at: usize,
    items: Vec<Item<'a>>,
    /// The key being read, as a range of the line; none where the end is 0.
    start: usize,
    end: usize,
    words: usize,
    separated: bool,
    /// A key with its separator that was followed by words.
    label: Option<&'a str>,
    /// The value stands in a wrapper such as `tensor(`.
    wrapped: bool,
}

impl<'a> Scanner<'a> {
    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    fn key(&self) -> &'a str {
        if self.words == 0 { "" } else { self.line.get(self.start..self.end).unwrap_or("") }
    }

    /// The first position from `at` that is no space.
    fn skip_spaces(&self, mut at: usize) -> usize {
        while matches!(self.byte(at), b' ' | b'\t') {
            at += 1;
        }
        at
    }

    fn run(&mut self) {
        while self.at < self.bytes.len() && self.items.len() < MOST_ITEMS {
            let byte = self.byte(self.at);
            match byte {
                b' ' => {
                    let after = self.skip_spaces(self.at);
                    if after - self.at > 1 && !self.separated {
                        // Padding before a value (`epoch:   3`, `Pseudo dice  0.5`) belongs to the key, before words not.
                        let value =
                            matches!(self.byte(after), b'0'..=b'9' | b'-' | b'+' | b'.' | b':' | b'=' | b'[');
                        if !value {
                            self.flush();
                        }
                    }
                    self.at = after;
                }
                b'\t' => {
                    if !self.separated {
                        self.flush();
                    }
                    self.at += 1;
                }
                b'\'' | b'"' => self.quoted(byte),
                b':' | b'=' => self.separator(),
                b'[' | b'(' => self.bracket(byte),
                b'0'..=b'9' => self.number_or_word(),
                b'-' | b'+' | b'.' if self.number_follows() => self.number_or_word(),
                _ if self.word_byte(self.at) > 0 => self.word(),
                _ => {
                    // The fullwidth colon of Chinese and Japanese.
                    if self.bytes[self.at..].starts_with("：".as_bytes()) {
                        self.separator();
                        self.at += 2;
                    } else {
                        self.flush();
                        self.at += character_length(byte);
                    }
                }
            }
        }
        self.flush();
    }

    /// Ends the key being read: it has no number.
    fn flush(&mut self) {
        let key = self.key();
        match self.label.take() {
            Some(label) if !key.is_empty() => self.items.push(Item::Text { key: label, value: key }),
            Some(label) => self.items.push(Item::Words(label)),
            None if !key.is_empty() => self.items.push(Item::Words(key)),
            None => {}
        }
        self.reset();
    }

    fn reset(&mut self) {
        self.words = 0;
        self.separated = false;
        self.wrapped = false;
        self.label = None;
    }

    /// Bytes of the word character at a position; 0 where there is none.
    fn word_byte(&self, at: usize) -> usize {
        match self.byte(at) {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => 1,
            byte @ 0xc3..=0xf4 => {
                let next = self.byte(at + 1);
                let third = self.byte(at + 2);
                let symbol = match byte {
                    // Punctuation, arrows, boxes, blocks; emoji; fullwidth forms.
                    0xe2 | 0xef | 0xf0.. => true,
                    // `、。「」`
                    0xe3 => next == 0x80 && third != 0x85,
                    _ => false,
                };
                if symbol { 0 } else { character_length(byte) }
            }
            _ => 0,
        }
    }

    /// Whether the sign or point here starts a number.
    fn number_follows(&self) -> bool {
        let before = if self.at == 0 { b' ' } else { self.byte(self.at - 1) };
        if before.is_ascii_alphanumeric() || before == b'_' || before == b')' {
            return false;
        }
        let mut next = self.at + 1;
        if self.byte(self.at) != b'.' && self.byte(next) == b'.' {
            next += 1;
        }
        let word = self.byte(next).to_ascii_lowercase();
        self.byte(next).is_ascii_digit()
            || (self.byte(self.at) != b'.' && (word == b'i' || word == b'n') && self.parse(self.at).is_some())
    }

    fn separator(&mut self) {
        self.at += 1;
        if self.words == 0 {
            return;
        }
        if self.separated && self.label.is_none() {
            return;
        }
        if self.label.is_some() {
            // `Test set: Average loss:`: the first was no key.
            if let Some(label) = self.label.take() {
                self.items.push(Item::Words(label));
            }
        }
        self.separated = true;
        // `=>`, `==`
        while matches!(self.byte(self.at), b'=' | b'>') {
            self.at += 1;
        }
    }

    fn quoted(&mut self, quote: u8) {
        let before = if self.at == 0 { b' ' } else { self.byte(self.at - 1) };
        let open = self.at + 1;
        let window = &self.bytes[open..self.bytes.len().min(open + LONGEST_LABEL)];
        // An apostrophe (`can't`) opens nothing.
        let close = if before.is_ascii_alphanumeric() { None } else { memchr::memchr(quote, window) };
        let Some(length) = close else {
            self.at += 1;
            return;
        };
        let close = open + length;
        let content = self.line.get(open..close).unwrap_or("");
        let after = self.skip_spaces(close + 1);
        if matches!(self.byte(after), b':' | b'=') && !content.is_empty() {
            self.flush();
            (self.start, self.end, self.words, self.separated) = (open, close, 1, true);
            self.at = after + 1;
            return;
        }
        if self.separated && self.label.is_none() {
            let key = self.key();
            match number(content) {
                Some(value) => {
                    self.items.push(Item::Number(Number {
                        key,
                        separated: true,
                        value,
                        ..Number::default()
                    }));
                }
                None => self.items.push(Item::Text { key, value: content }),
            }
            self.reset();
        } else {
            self.flush();
        }
        self.at = close + 1;
    }

    fn word(&mut self) {
        let from = self.at;
        // `nan` and `inf` are values where a key waits for one.
        if (self.separated || self.words > 0)
            && self.label.is_none()
            && matches!(self.byte(from), b'n' | b'N' | b'i' | b'I')
            && let Some((value, after)) = self.parse(from)
            && (self.separated || is_metric(self.key()))
        {
            self.value(value, from, after);
            return;
        }
        let after = self.word_end(from);
        let word = self.line.get(from..after).unwrap_or("");
        if self.separated && self.byte(after) == b'(' && is_wrapper(word) {
            self.wrapped = true;
            self.at = after + 1;
            if self.byte(self.at) == b'[' {
                self.bracket(b'[');
            }
            return;
        }
        // Paths and the like.
        if after - from > LONGEST_LABEL || word.bytes().filter(|&b| b == b'/').count() > 2 {
            self.flush();
            self.at = after;
            return;
        }
        // `loss is 0.4`
        if !self.separated && self.words > 0 && (word == "is" || word == "was") {
            self.at = after;
            let next = self.skip_spaces(after);
            if self.byte(next).is_ascii_digit() || self.byte(next) == b'-' {
                self.separated = true;
            } else {
                self.append(from, after);
            }
            return;
        }
        self.append(from, after);
        self.at = after;
    }

    /// Where the word that starts here ends. `/`, `-`, `.`, `@`, `+` join words inside of one.
    fn word_end(&self, from: usize) -> usize {
        let mut at = from;
        loop {
            let length = self.word_byte(at);
            if length > 0 {
                at += length;
            } else if matches!(self.byte(at), b'/' | b'-' | b'.' | b'@' | b'+') && self.word_byte(at + 1) > 0
            {
                at += 1;
            } else {
                return at.max(from + 1).min(self.bytes.len());
            }
        }
    }

    /// Adds a word to the key.
    fn append(&mut self, from: usize, to: usize) {
        if self.separated {
            // Words where a value was expected: `optimizer: adam`, `Test set: Average loss: 0.5`.
            if let Some(label) = self.label.take() {
                self.items.push(Item::Words(label));
            }
            self.label = Some(self.key());
            self.words = 0;
            self.separated = false;
        }
        if self.words == 0 {
            self.start = from;
        }
        self.words += 1;
        self.end = to;
    }

    /// A number here and where it ends; `None` where the digits belong to something else: `59.5M`, `0:04:04`, `1.12.0`.
    fn parse(&self, from: usize) -> Option<(f64, usize)> {
        let mut at = from;
        if matches!(self.byte(at), b'-' | b'+') {
            at += 1;
        }
        let negative = self.byte(from) == b'-';
        let letter = matches!(self.byte(at), b'n' | b'N' | b'i' | b'I');
        for (word, value) in [("nan", f64::NAN), ("infinity", f64::INFINITY), ("inf", f64::INFINITY)] {
            let found = letter
                && self
                    .bytes
                    .get(at..at + word.len())
                    .is_some_and(|b| b.eq_ignore_ascii_case(word.as_bytes()));
            if found && self.word_byte(at + word.len()) == 0 {
                return Some((if negative { -value } else { value }, at + word.len()));
            }
        }
        let digits = |mut at: usize| {
            while self.byte(at).is_ascii_digit() {
                at += 1;
            }
            at
        };
        let whole = digits(at);
        let mut end = whole;
        let mut grouped = false;
        // `5,644,913`
        if whole > at && whole - at <= 3 {
            // At most to a quintillion, so that a long list is not gone through from each of its numbers.
            while end - at < 24 && self.byte(end) == b',' && digits(end + 1) == end + 4 {
                end += 4;
                grouped = true;
            }
        }
        if !grouped && self.byte(end) == b'.' {
            end = digits(end + 1);
            if end == whole + 1 && whole == at {
                return None;
            }
        }
        if end == at {
            return None;
        }
        if matches!(self.byte(end), b'e' | b'E') {
            let sign = usize::from(matches!(self.byte(end + 1), b'-' | b'+'));
            let exponent = digits(end + 1 + sign);
            if exponent > end + 1 + sign {
                end = exponent;
            }
        }
        let text = self.line.get(from..end)?;
        let value = if grouped { number(&text.replace(',', ""))? } else { number(text)? };
        let next = self.byte(end);
        let continues = self.word_byte(end) > 0
            || (matches!(next, b':' | b'.' | b'-') && self.byte(end + 1).is_ascii_digit())
            || (next == b'-' && self.word_byte(end + 1) > 0);
        (!continues).then_some((value, end))
    }

    fn number_or_word(&mut self) {
        let from = self.at;
        if let Some((value, after)) = self.parse(from) {
            self.value(value, from, after);
            return;
        }
        // `2d_loss`, `59.5M`, `12:30:01`, `0x7f`.
        let mut after = from + 1;
        loop {
            let length = self.word_byte(after);
            if length > 0 {
                after += length;
            } else if matches!(self.byte(after), b':' | b'.' | b'-' | b'/' | b'+' | b'<')
                && self.byte(after + 1).is_ascii_alphanumeric()
            {
                after += 1;
            } else {
                break;
            }
        }
        let token = &self.bytes[from..after.min(self.bytes.len())];
        let plain = token.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
            && token.iter().any(u8::is_ascii_alphabetic)
            && token.len() > 2;
        self.at = after;
        if self.separated {
            let (key, value) = (self.key(), self.line.get(from..after).unwrap_or(""));
            self.items.push(Item::Text { key, value });
            self.reset();
        } else if plain {
            self.append(from, after);
        } else {
            self.flush();
            // A rate such as `?it/s` leaves its unit behind: not the start of a key.
            while self.word_byte(self.at) > 0 || self.byte(self.at) == b'/' {
                self.at += 1;
            }
        }
    }

    /// A number was read: decides whose value it is.
    fn value(&mut self, value: f64, from: usize, after: usize) {
        let key = self.key();
        let position = position(key);
        let mut found = Number {
            key,
            separated: self.separated,
            value,
            leading: self.items.is_empty() && self.words == 0 && self.line[..from].trim().is_empty(),
            ..Number::default()
        };
        self.at = after;
        if self.byte(after) == b'%' {
            self.at += 1;
            if self.byte(after + 1) == b'|' {
                // The percentage of a progress bar; what stands before it is its title.
                if self.separated {
                    self.separated = false;
                }
                self.flush();
                return;
            }
        } else {
            let (total, end) = self.total(after, position.is_some());
            found.total = total;
            self.at = end;
        }
        let bar_follows = {
            let next = self.skip_spaces(self.at);
            found.total.is_some()
                && (self.byte(next) == b'['
                    && (self.bytes.get(from.wrapping_sub(2)) == Some(&b'|') || found.leading)
                    || (found.leading && self.byte(next) == 0xe2))
        };
        if key.is_empty() || self.words == 0 {
            found.bar = bar_follows;
            let numbered = found.leading && self.byte(self.at) == b')';
            if found.bar || numbered {
                self.items.push(Item::Number(found));
            }
            self.reset();
            return;
        }
        if self.words > MOST_WORDS {
            self.flush();
            return;
        }
        if !self.separated && position.is_none() && !is_metric(key) {
            let next = self.byte(self.skip_spaces(self.at));
            let whole = value.fract() == 0.0 && found.total.is_none();
            // `Class 1 Dice: 0.8`, `Dice 1: 0.8`
            if whole && next != b',' {
                self.append(from, after);
                return;
            }
            if found.total.is_some() && is_split(key) {
                self.items.push(Item::Number(found));
                self.reset();
                return;
            }
            self.flush();
            return;
        }
        // `Dice class 1: 0.8`, `loss 2: 0.8`
        if !self.separated && position.is_none() && value.fract() == 0.0 && found.total.is_none() {
            let next = self.skip_spaces(self.at);
            if matches!(self.byte(next), b':' | b'=') && self.byte(after) != b'%' {
                self.append(from, after);
                return;
            }
        }
        if position.is_some() || is_split(key) {
            found.counter = self.counter();
        } else {
            self.deviation();
            found.average = self.average();
            if self.unit_follows() {
                self.items.push(Item::Words(key));
                self.reset();
                return;
            }
        }
        if let Some(label) = self.label.take() {
            self.items.push(Item::Words(label));
        }
        self.items.push(Item::Number(found));
        if self.wrapped {
            // `tensor(0.5, device='cuda:0')`
            let window = &self.bytes[self.at..self.bytes.len().min(self.at + 160)];
            // Names of functions in it have no parentheses but may be in angle brackets.
            if let Some(close) = memchr::memchr(b')', window) {
                self.at += close + 1;
            }
        }
        self.reset();
    }

    /// The total of `3/50`, `3 / 50` and `3 of 50`.
    fn total(&self, after: usize, position: bool) -> (Option<f64>, usize) {
        let mut at = self.skip_spaces(after);
        if self.byte(at) == b'/' {
            at += 1;
        } else if position && at > after && self.bytes[at..].starts_with(b"of ") {
            at += 3;
        } else {
            return (None, after);
        }
        match self.parse(self.skip_spaces(at)) {
            Some((total, end)) if total > 0.0 => (Some(total), end),
            _ => (None, after),
        }
    }

    /// `[10/390]` after a position, also `[  0/1251 (  0%)]`.
    fn counter(&mut self) -> Option<(f64, Option<f64>)> {
        let mut at = self.at;
        while matches!(self.byte(at), b' ' | b']' | b'\t') && at < self.at + 8 {
            at += 1;
        }
        if self.byte(at) != b'[' && self.byte(at) != b'(' {
            return None;
        }
        let open = self.byte(at);
        let (value, end) = self.parse(self.skip_spaces(at + 1))?;
        let (total, end) = self.total(end, true);
        let next = self.byte(self.skip_spaces(end));
        // In parentheses only with a total: `(98%)` is none.
        if total.is_none() && (open == b'(' || next != b']') {
            return None;
        }
        self.at = end;
        Some((value, total))
    }

    /// Passes over `±0.02`.
    fn deviation(&mut self) {
        let at = self.skip_spaces(self.at);
        let rest = &self.bytes[at..];
        let length = ["±", "+/-", "+-", "\\pm"]
            .iter()
            .find(|sign| rest.starts_with(sign.as_bytes()))
            .map_or(0, |sign| sign.len());
        if length > 0
            && let Some((_, end)) = self.parse(self.skip_spaces(at + length))
        {
            self.at = end;
        }
    }

    /// `(0.43)` after a value.
    fn average(&mut self) -> Option<f64> {
        let at = self.skip_spaces(self.at);
        if self.byte(at) != b'(' {
            return None;
        }
        let inner = self.skip_spaces(at + 1);
        let (value, end) = self.parse(inner)?;
        let close = self.skip_spaces(end);
        if self.byte(close) == b')' {
            self.at = close + 1;
            return Some(value);
        }
        None
    }

    /// Whether a unit stands after the number: seconds and bytes measure the machine, not the training.
    fn unit_follows(&self) -> bool {
        if self.byte(self.at) != b' ' || self.byte(self.at + 1) == b' ' {
            return false;
        }
        let from = self.at + 1;
        let mut end = from;
        while self.byte(end).is_ascii_alphanumeric() || self.byte(end) == b'/' {
            end += 1;
        }
        const UNITS: [&str; 33] = [
            "s",
            "sec",
            "secs",
            "second",
            "seconds",
            "ms",
            "us",
            "min",
            "mins",
            "minutes",
            "h",
            "hours",
            "mb",
            "gb",
            "kb",
            "mib",
            "gib",
            "kib",
            "gi",
            "mi",
            "bytes",
            "images",
            "samples",
            "img/s",
            "it/s",
            "s/it",
            "images/s",
            "samples/s",
            "tokens/s",
            "examples",
            "iterations",
            "epochs",
            "steps",
        ];
        let word = self.line.get(from..end).unwrap_or("");
        // `0.5 s: 0.3` would be a key.
        UNITS.iter().any(|unit| word.eq_ignore_ascii_case(unit)) && !matches!(self.byte(end), b':' | b'=')
    }

    fn bracket(&mut self, open: u8) {
        let key = self.key();
        if self.words > 0 && self.label.is_none() {
            if !self.separated && self.label_in_brackets(open) {
                return;
            }
            let position = position(key).is_some() || is_split(key);
            if position && let Some((value, total)) = self.counter() {
                let mut found = Number { key, separated: self.separated, value, total, ..Number::default() };
                found.counter = self.counter();
                self.items.push(Item::Number(found));
                self.reset();
                return;
            }
            if (self.separated || (open == b'[' && is_metric(key)))
                && let Some((values, end)) = self.list()
            {
                self.at = end;
                match values.as_slice() {
                    [value] => self.items.push(Item::Number(Number {
                        key,
                        separated: self.separated,
                        value: *value,
                        ..Number::default()
                    })),
                    values if values.len() <= MOST_NUMBERS => {
                        self.items.push(Item::List { key, values: values.to_vec() });
                    }
                    _ => {}
                }
                self.reset();
                return;
            }
        } else if self.words == 0 && open == b'[' {
            // A counter without a name: `[10/390] loss: 0.4`.
            let leading = self.items.is_empty();
            if let Some((value, total @ Some(_))) = self.counter() {
                let counter = self.counter();
                self.items.push(Item::Number(Number { value, total, counter, leading, ..Number::default() }));
                return;
            }
        }
        self.flush();
        self.at += 1;
    }

    /// Text in brackets that belongs to the key: `Class [1 Left Ventricle] Dice`, `Iter(train)`, `loss (mean)`.
    fn label_in_brackets(&mut self, open: u8) -> bool {
        let close = if open == b'[' { b']' } else { b')' };
        let window = &self.bytes[self.at..self.bytes.len().min(self.at + LONGEST_LABEL)];
        let Some(length) = memchr::memchr(close, window) else { return false };
        let content = &window[1..length];
        let letters = content.iter().any(u8::is_ascii_alphabetic) || content == b"%";
        let end = self.at + length + 1;
        let next = self.byte(self.skip_spaces(end));
        let fits = if open == b'[' {
            // A class's number and name, with the metric after it.
            letters
                && content.first().is_some_and(u8::is_ascii_digit)
                && self.byte(end) == b' '
                && self.word_byte(end + 1) > 0
        } else {
            letters
                && content.len() <= 24
                && content
                    .iter()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b' ' | b'_' | b'%' | b'@' | b'.'))
                && (matches!(next, b':' | b'=' | b'[') || next.is_ascii_digit())
        };
        if fits {
            let at = self.at;
            self.append(at, end);
            self.at = end;
        }
        fits
    }

    /// The numbers of a list and where it ends; `None` where anything else is in it.
    fn list(&self) -> Option<(Vec<f64>, usize)> {
        let close = if self.byte(self.at) == b'[' { b']' } else { b')' };
        let mut values = Vec::new();
        let mut at = self.at + 1;
        loop {
            at = self.skip_spaces(at);
            match self.byte(at) {
                b if b == close => break,
                b',' | b';' => at += 1,
                b'0'..=b'9' | b'-' | b'+' | b'.' => {
                    // Commas separate here, they do not group digits.
                    let (value, end) = self.ungrouped(at)?;
                    values.push(value);
                    at = if self.byte(end) == b'%' { end + 1 } else { end };
                }
                _ => {
                    if let Some((value, end)) = self.parse(at) {
                        values.push(value);
                        at = end;
                        continue;
                    }
                    // `np.float64(0.3)`
                    let end = self.word_end(at);
                    if self.byte(end) != b'(' || !is_wrapper(self.line.get(at..end)?) {
                        return None;
                    }
                    let (value, end) = self.parse(end + 1)?;
                    let window = &self.bytes[end..self.bytes.len().min(end + 64)];
                    values.push(value);
                    at = end + memchr::memchr(b')', window)? + 1;
                }
            }
            if values.len() > 4 * MOST_NUMBERS {
                return None;
            }
        }
        (!values.is_empty()).then_some((values, at + 1))
    }

    fn ungrouped(&self, from: usize) -> Option<(f64, usize)> {
        let mut end = from;
        while matches!(self.byte(end), b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E') {
            end += 1;
        }
        match number(self.line.get(from..end)?) {
            Some(value) => Some((value, end)),
            None => self.parse(from),
        }
    }
}

fn character_length(first: u8) -> usize {
    match first {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0.. => 4,
        _ => 1,
    }
}

/// A number as it is written, with nothing around it.
pub(crate) fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let digits = text.strip_prefix('+').unwrap_or(text);
    // Not `infinit` and other words.
    fast_float2::parse(digits).ok()
}

fn is_wrapper(word: &str) -> bool {
    let word = word.rsplit('.').next().unwrap_or(word);
    ["tensor", "Array", "array", "DeviceArray", "float", "float16", "float32", "float64"].contains(&word)
}

/// What a key counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// Epochs.
    Epoch,
    /// Iterations, of the epoch or of the run.
    Iteration,
    /// Iterations of the run: `global_step`.
    Step,
}

/// The part of the data that a measurement is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Split {
    /// Not said.
    #[default]
    Unknown,
    Train,
    Validation,
    Test,
}

impl Split {
    /// The split that a word names.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        const WORDS: [(&str, Split); 18] = [
            ("train", Split::Train),
            ("training", Split::Train),
            ("trn", Split::Train),
            ("val", Split::Validation),
            ("valid", Split::Validation),
            ("validate", Split::Validation),
            ("validation", Split::Validation),
            ("validating", Split::Validation),
            ("eval", Split::Validation),
            ("evaluate", Split::Validation),
            ("evaluation", Split::Validation),
            ("evaluating", Split::Validation),
            ("dev", Split::Validation),
            ("test", Split::Test),
            ("testing", Split::Test),
            ("tst", Split::Test),
            ("validierung", Split::Validation),
            ("验证", Split::Validation),
        ];
        if !starts_with_any(word, b"tved") {
            return None;
        }
        WORDS.iter().find(|(known, _)| word.eq_ignore_ascii_case(known)).map(|&(_, split)| split)
    }

    /// The split that the words of a key name: `val_loss`, `Mean Validation Dice`, `valLoss`.
    pub(crate) fn of_key(key: &str) -> Option<Self> {
        words(without_label(key)).find_map(|word| {
            Self::of_word(word).or_else(|| {
                let rest = word.strip_prefix("val").or_else(|| word.strip_prefix("train"))?;
                let camel = rest.starts_with(|c: char| c.is_ascii_uppercase());
                camel.then(|| if word.starts_with("val") { Self::Validation } else { Self::Train })
            })
        })
    }
}

/// Whether a word is the known one, which is in lower case.
fn same(word: &str, known: &str) -> bool {
    word.eq_ignore_ascii_case(known) || (!word.is_ascii() && word.to_lowercase() == known)
}

/// Whether a word starts with one of some letters, or with one that is not Latin: most are told apart by that.
fn starts_with_any(word: &str, letters: &[u8]) -> bool {
    word.bytes()
        .next()
        .is_some_and(|first| !first.is_ascii() || letters.contains(&first.to_ascii_lowercase()))
}

fn is_split(key: &str) -> bool {
    Split::of_word(key).is_some()
}

/// A key without the name of a class in it, which may be any word: `Class [16 train] IoU`.
fn without_label(key: &str) -> &str {
    key.rsplit_once("] ").map_or(key, |(_, metric)| metric)
}

/// The words of a key: `train/loss_ce` has three.
pub(crate) fn words(key: &str) -> impl Iterator<Item = &str> {
    key.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

/// What a key counts, if it is a position rather than a measurement. In the plural it may be a declared total.
pub(crate) fn position(key: &str) -> Option<(Position, bool)> {
    const WORDS: [(&str, Position, bool); 22] = [
        ("epoch", Position::Epoch, false),
        ("epochs", Position::Epoch, true),
        ("ep", Position::Epoch, false),
        ("epoche", Position::Epoch, false),
        ("epoca", Position::Epoch, false),
        ("época", Position::Epoch, false),
        ("époque", Position::Epoch, false),
        ("эпоха", Position::Epoch, false),
        ("轮次", Position::Epoch, false),
        ("iter", Position::Iteration, false),
        ("iters", Position::Iteration, true),
        ("iteration", Position::Iteration, false),
        ("iterations", Position::Iteration, true),
        ("itr", Position::Iteration, false),
        ("it", Position::Iteration, true),
        ("step", Position::Iteration, false),
        ("steps", Position::Iteration, true),
        ("batch", Position::Iteration, true),
        ("batches", Position::Iteration, true),
        ("updates", Position::Iteration, true),
        ("iteración", Position::Iteration, false),
        ("schritt", Position::Iteration, false),
    ];
    if key.is_empty() || key.len() > 40 {
        return None;
    }
    let mut found = None;
    let (mut global, mut index) = (false, false);
    for word in words(key) {
        let is = |list: &[&str]| list.iter().any(|known| word.eq_ignore_ascii_case(known));
        let known = starts_with_any(word, b"eisbu")
            .then(|| WORDS.iter().find(|(known, ..)| same(word, known)))
            .flatten();
        if let Some(&(_, position, plural)) = known {
            if found.is_some() {
                return None;
            }
            found = Some((position, plural));
        } else if is(&["global"])
            || (found.is_none() && is(&["num"]) && key.eq_ignore_ascii_case("num_updates"))
        {
            global = true;
        } else if is(&["idx", "index", "id", "number"]) {
            index = true;
        } else if !is(&["current", "at"]) && Split::of_word(word).is_none() {
            return None;
        }
    }
    match found? {
        (Position::Iteration, _) if global => Some((Position::Step, false)),
        (position, plural) => Some((position, plural && !index)),
    }
}

/// Whether the words of a key name a measurement of training.
pub(crate) fn is_metric(key: &str) -> bool {
    const STEMS: [&str; 27] = [
        "loss",
        "dice",
        "iou",
        "accura",
        "precision",
        "recall",
        "auroc",
        "psnr",
        "ssim",
        "bleu",
        "rouge",
        "perplex",
        "reward",
        "jaccard",
        "fscore",
        "score",
        "gradnorm",
        "entropy",
        "hausdorff",
        "sensitiv",
        "specific",
        "similarity",
        "kappa",
        "elbo",
        "map50",
        "verlust",
        "perte",
    ];
    const WORDS: [&str; 17] = [
        "lr",
        "acc",
        "acc1",
        "acc5",
        "gnorm",
        "kl",
        "kld",
        "kappa",
        "rec",
        "prec",
        "seg",
        "pearson",
        "error",
        "err",
        "损失",
        "准确率",
        "精度",
    ];
    if key.is_empty() || key.len() > 4 * LONGEST_LABEL {
        return false;
    }
    if is_noise(key) {
        return false;
    }
    let key = without_label(key);
    let mut grad = false;
    for word in words(key) {
        let lower = word.to_lowercase();
        if WORDS.contains(&lower.as_str()) || STEMS.iter().any(|stem| lower.contains(stem)) {
            return true;
        }
        if lower == "norm" && grad {
            return true;
        }
        grad = lower.starts_with("grad");
    }
    let lower = key.to_ascii_lowercase();
    lower.contains("learning rate") || lower.contains("learning_rate") || names::goal(key).is_some()
}

/// Whether a key can never be a measurement: times, sizes, what was best so far, prose.
pub(crate) fn is_noise(key: &str) -> bool {
    const NOISE: [&str; 95] = [
        "time",
        "times",
        "eta",
        "elapsed",
        "mem",
        "memory",
        "gpu",
        "gpus",
        "cuda",
        "cpu",
        "size",
        "sizes",
        "params",
        "parameters",
        "speed",
        "throughput",
        "fps",
        "second",
        "seconds",
        "sec",
        "secs",
        "ms",
        "duration",
        "runtime",
        "version",
        "pid",
        "port",
        "rank",
        "seed",
        "workers",
        "host",
        "line",
        "device",
        "took",
        "remaining",
        "date",
        "hour",
        "hours",
        "minute",
        "minutes",
        "min",
        "timestamp",
        "wall",
        "previous",
        "prev",
        "flos",
        "flops",
        "examples",
        "samples",
        "preemption",
        "patience",
        "counter",
        "id",
        "job",
        "shape",
        "range",
        "batchsize",
        "mb",
        "gb",
        "mib",
        "gib",
        "tokens",
        "images",
        "files",
        "of",
        "the",
        "from",
        "to",
        "than",
        "improved",
        "after",
        "with",
        "for",
        "and",
        "not",
        "on",
        "by",
        "are",
        "be",
        "you",
        "your",
        "this",
        "that",
        "will",
        "should",
        "if",
        "using",
        "only",
        "which",
        "best",
        "highest",
        "lowest",
        "so",
        "threads",
        "vnum",
    ];
    let mut first = true;
    for word in words(without_label(key)) {
        let is = |known: &str| word.eq_ignore_ascii_case(known);
        if NOISE.iter().any(|known| is(known)) {
            return true;
        }
        // `Max accuracy`, `max_mem`: extremes so far.
        if first && ["max", "maximum", "minimum"].iter().any(|known| is(known)) {
            return true;
        }
        first = false;
    }
    ["v_num", "data", "total_iters"].contains(&key)
}

/// Whether a key tells of an earlier value rather than the present one.
pub(crate) fn is_of_the_past(key: &str) -> bool {
    words(key).any(|word| ["best", "previous", "prev"].iter().any(|known| word.eq_ignore_ascii_case(known)))
}

/// Whether a key has no split even on a line of validation: learning rates and gradients are of training only.
pub(crate) fn has_no_split(key: &str) -> bool {
    let lower = key.to_ascii_lowercase();
    words(&lower).any(|word| {
        ["lr", "grad", "gradient", "norm", "gnorm", "momentum", "decay", "learning"].contains(&word)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Keys and values as text: `key=value`, with what else is known of the number.
    fn found(line: &str) -> Vec<String> {
        scan(line)
            .into_iter()
            .filter_map(|item| match item {
                Item::Words(_) | Item::Text { .. } => None,
                Item::List { key, values } => Some(format!("{key}={values:?}")),
                Item::Number(n) => {
                    let mut text = format!("{}={}", n.key, n.value);
                    if let Some(total) = n.total {
                        text += &format!("/{total}");
                    }
                    if let Some(average) = n.average {
                        text += &format!("({average})");
                    }
                    if let Some((value, total)) = n.counter {
                        text += &format!("[{value}/{}]", total.unwrap_or(0.0));
                    }
                    if n.bar {
                        text += " bar";
                    }
                    Some(text)
                }
            })
            .collect()
    }

    #[test]
    fn keys_and_values_are_found_in_the_many_ways_to_print_them() {
        for (line, expected) in [
            (
                "Epoch 3/50 | step 120/400 loss: 0.41 val_dice=0.7 lr=1e-4",
                &["Epoch=3/50", "step=120/400", "loss=0.41", "val_dice=0.7", "lr=0.0001"][..],
            ),
            ("[Epoch 3] train loss 0.532 acc 88.1%", &["Epoch=3", "train loss=0.532", "acc=88.1"]),
            (
                "Epoch [5/100], Iter [10/390], Loss: 2.3012, Accuracy: 12.5 %",
                &["Epoch=5/100", "Iter=10/390", "Loss=2.3012", "Accuracy=12.5"],
            ),
            (
                "===========> Iteration: 30, LR: 0.00100, Total loss: 0.23, Loss s: 0.1, Mask ratio: 0.73",
                &["Iteration=30", "LR=0.001", "Total loss=0.23", "Loss s=0.1", "Mask ratio=0.73"],
            ),
            ("***** Evaluation ***** >>>> MeanIoU: 77.6", &["MeanIoU=77.6"]),
            ("Dice: [0.87, 0.81, nan]", &["Dice=[0.87, 0.81, NaN]"]),
            ("Pseudo dice [0.3181, 0.6331] ", &["Pseudo dice=[0.3181, 0.6331]"]),
            ("Pseudo dice [np.float32(0.9), np.float32(0.8)]", &["Pseudo dice=[0.9, 0.8]"]),
            ("loss: 0.41 (0.43) acc 3 ( 4.5)", &["loss=0.41(0.43)", "acc=3(4.5)"]),
            ("loss 0.41±0.02, dice: 0.7 +- 0.1", &["loss=0.41", "dice=0.7"]),
            ("loss=nan grad_norm=-inf loss_b: Infinity", &["loss=NaN", "grad_norm=-inf", "loss_b=inf"]),
            ("loss nan", &["loss=NaN"]),
            (
                "loss: tensor(0.5, device='cuda:0', grad_fn=<NllLossBackward0>), acc: 3",
                &["loss=0.5", "acc=3"],
            ),
            ("dice: tensor([0.5, 0.25])", &["dice=[0.5, 0.25]"]),
            (
                "{'loss': 0.41, 'learning_rate': 1e-05, 'epoch': 0.1}",
                &["loss=0.41", "learning_rate=0.00001", "epoch=0.1"],
            ),
            ("{\"loss\": \"0.41\", 'lr': Array(0.5, dtype=float32)}", &["loss=0.41", "lr=0.5"]),
            (
                "Epoch 3:  45%|████▌     | 12/100 [00:10<00:05,  1.2it/s, loss=0.41]",
                &["Epoch=3", "=12/100 bar", "loss=0.41"],
            ),
            ("Training:  45%|███| 12/100 [00:10<?, ?it/s, v_num=0]", &["=12/100 bar", "v_num=0"]),
            (
                "1875/1875 [==============================] - 3s 1ms/step - loss: 0.29 - accuracy: 0.91",
                &["=1875/1875 bar", "loss=0.29", "accuracy=0.91"],
            ),
            ("391/391 ━━━━━━━━━ 7s 17ms/step - loss: 1.8", &["=391/391 bar", "loss=1.8"]),
            ("Class [1 Left Ventricle] Dice: 89.2", &["Class [1 Left Ventricle] Dice=89.2"]),
            ("Class [20 tv/monitor] IoU: 66.22", &["Class [20 tv/monitor] IoU=66.22"]),
            ("Class 1 Dice: 0.8, Dice class 2: 0.7", &["Class 1 Dice=0.8", "Dice class 2=0.7"]),
            (
                "Epoch: [3][ 10/5005]\tTime  0.2 ( 0.4)\tLoss 6.9 (7.0)\tAcc@1   0.00 (  0.1)",
                &["Epoch=3[10/5005]", "Loss=6.9(7)", "Acc@1=0(0.1)"],
            ),
            ("Train: 0 [   0/1251 (  0%)]  Loss: 6.95 (6.94)", &["Train=0[0/1251]", "Loss=6.95(6.94)"]),
            ("Train: [0/50][10/390]\tlr 0.0003", &["Train=0/50[10/390]", "lr=0.0003"]),
            ("Train Epoch: 1 [640/60000 (1%)]\tLoss: 2.3", &["Train Epoch=1[640/60000]", "Loss=2.3"]),
            (
                "Test set: Average loss: 0.05, Accuracy: 9850/10000 (98%)",
                &["Average loss=0.05", "Accuracy=9850/10000"],
            ),
            (
                "Iter(train) [   50/40000]  lr: 9.9e-03  loss: 0.9",
                &["Iter(train)=50/40000", "lr=0.0099", "loss=0.9"],
            ),
            (
                "Epoch(val) [1][500/500]    mIoU: 79.  mAcc: 8",
                &["Epoch(val)=1[500/500]", "mIoU=79", "mAcc=8"],
            ),
            ("[10/390] loss: 0.4", &["=10/390", "loss=0.4"]),
            ("63) loss = nan, grad_norm = 2", &["=63", "loss=NaN", "grad_norm=2"]),
            ("Epoch 2 of 10: loss is 0.5", &["Epoch=2/10", "loss=0.5"]),
            ("Epoch 00003: val_loss improved from inf to 0.5", &["Epoch=3"]),
            ("loss (mean): 0.5, Accuracy(%): 88", &["loss (mean)=0.5", "Accuracy(%)=88"]),
            ("Total params: 5,644,913 and more", &["Total params=5644913"]),
            ("损失：0.5，准确率：0.8", &["损失=0.5", "准确率=0.8"]),
            ("Época 3 pérdida_loss=-0.25", &["Época=3", "pérdida_loss=-0.25"]),
            ("decode.loss_ce: 0.6  decode.acc_seg: 77.7", &["decode.loss_ce=0.6", "decode.acc_seg=77.7"]),
            ("loss:0.5;acc:0.9", &["loss=0.5", "acc=0.9"]),
            ("mAP@0.5: 0.61", &["mAP@0.5=0.61"]),
        ] {
            assert_eq!(found(line), expected, "{line}");
        }
    }

    #[test]
    fn times_sizes_versions_and_prose_have_no_values() {
        for line in [
            "eta: 4:45:41",
            "took 22.33 s",
            "Epoch time: 22.33 s",
            "Total params: 59.5M",
            "Mem 112MB",
            "Python 3.10.12, torch 1.12.0+cu113",
            "Tried to allocate 1.12 GiB. GPU 0 has a total capacity of 10.75 GiB",
            "saved to /data/run_3/epoch_4.pth",
            "pointer 0x7f00 at 2023-03-21 10:00:00",
            "Found 786 images in 3 folders",
            "Accuracy of the network on the 50000 train images: 19.1%",
            "[00:10<00:05, 1.2it/s]",
            "can't open 'file",
        ] {
            assert_eq!(found(line), Vec::<String>::new(), "{line}");
        }
    }

    #[test]
    fn text_values_and_words_are_kept_apart() {
        assert_eq!(
            scan("optimizer: adam, 'name': 'OHEM', Validating..."),
            [
                Item::Text { key: "optimizer", value: "adam" },
                Item::Text { key: "name", value: "OHEM" },
                Item::Words("Validating"),
            ]
        );
    }

    #[test]
    fn positions_are_told_from_totals_and_measurements() {
        assert_eq!(position("Train Epoch"), Some((Position::Epoch, false)));
        assert_eq!(position("epochs"), Some((Position::Epoch, true)));
        assert_eq!(position("global_step"), Some((Position::Step, false)));
        assert_eq!(position("batch_idx"), Some((Position::Iteration, false)));
        for key in ["best epoch", "max_epochs", "Epoch time", "num_epochs", "steps_per_epoch", "loss", ""] {
            assert_eq!(position(key), None, "{key}");
        }
    }

    #[test]
    fn splits_are_words_not_parts_of_words() {
        assert_eq!(Split::of_key("Mean Validation Dice"), Some(Split::Validation));
        assert_eq!(Split::of_key("train/loss"), Some(Split::Train));
        assert_eq!(Split::of_key("valLoss"), Some(Split::Validation));
        for key in ["value", "strain", "validity", "constrained loss", "Class [16 train] IoU"] {
            assert_eq!(Split::of_key(key), None, "{key}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_the_scanner_panic(line in "\\PC{0,200}") {
            scan(&line);
        }

        #[test]
        fn no_mixture_of_marks_makes_the_scanner_panic(
            line in "(Epoch |loss|[0-9]{1,3}|[:=/\\[\\](){}'\".,%|±： -]|tensor\\(|nan|█|e|\t){0,60}",
        ) {
            scan(&line);
        }
    }
}
