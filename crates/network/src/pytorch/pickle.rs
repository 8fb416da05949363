//! The part of Python's pickle language that `torch.save` writes (protocols 2 to 5).
//!
//! A pickle is a program. This one runs on a stack of plain values and calls nothing: the few functions that a
//! checkpoint needs are known by name and carried out here; any other name is an error.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::rebuild::{Global, stored_tensor};
use super::value::{PickleValue, Storage};
use crate::error::{Error, Result};

/// Values that a pickle may make; a checkpoint of a thousand tensors makes some ten thousand.
const MOST_VALUES: usize = 1 << 22;
/// Greatest depth of nested values.
const DEEPEST: usize = 64;

/// An object and the storages that its tensors look into.
pub(super) struct Unpickled {
    /// The object.
    pub value: PickleValue,
    /// The storages by key.
    pub storages: BTreeMap<Arc<str>, Arc<Storage>>,
    /// Bytes that the pickle took.
    pub length: usize,
}

/// Runs the pickle at the start of `bytes`; `place` names it in messages. `most` bounds the elements of a tensor.
pub(super) fn run(place: &str, bytes: &[u8], most: usize) -> Result<Unpickled> {
    let mut machine = Machine { place, bytes, most, ..Machine::default() };
    while !machine.step()? {}
    let top = machine.pop()?;
    let length = machine.at;
    let mut left = MOST_VALUES;
    let value = machine.value(top, DEEPEST, &mut left)?;
    Ok(Unpickled { value, storages: machine.storages, length })
}

/// Number of a node: values may be shared, and lists are filled after they were shared.
pub(super) type Id = usize;

/// A value while the program runs.
pub(super) enum Node {
    Plain(PickleValue),
    List(Vec<Id>),
    Set(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Arc<Storage>),
}

#[derive(Default)]
pub(super) struct Machine<'a> {
    place: &'a str,
    bytes: &'a [u8],
    at: usize,
    pub(super) most: usize,
    pub(super) nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack at the marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    pub(super) storages: BTreeMap<Arc<str>, Arc<Storage>>,
}

impl Machine<'_> {
    pub(super) fn wrong(&self, expected: impl ToString, got: impl ToString) -> Error {
        Error::invalid(self.place, format!("pickle, byte {}", self.at), expected, got)
    }

    /// Carries out one instruction; whether it was the last.
    fn step(&mut self) -> Result<bool> {
        let code = self.number::<1>()? as u8;
        match code {
            b'.' => return Ok(true),
            0x80 => self.protocol()?,
            // a frame's length, which only helps to read ahead
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => self.discard()?,
            b'1' => drop(self.pop_mark()?),
            b'N' | 0x88 | 0x89 | b'J' | b'K' | b'M' | 0x8a | b'G' => self.push_number(code)?,
            b'X' => self.push_text::<4>()?,
            0x8c => self.push_text::<1>()?,
            0x8d => self.push_text::<8>()?,
            b'C' => self.push_bytes::<1>()?,
            b'B' => self.push_bytes::<4>()?,
            // of the last protocol: bytes, and such that can be changed
            0x8e | 0x96 => self.push_bytes::<8>()?,
            b']' => self.push(Node::List(Vec::new()))?,
            b'}' => self.push(Node::Dict(Vec::new()))?,
            b')' => self.push(Node::Tuple(Vec::new()))?,
            0x8f => self.push(Node::Set(Vec::new()))?,
            0x91 => {
                let items = self.pop_mark()?;
                self.push(Node::Set(items))?;
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push(Node::Tuple(items))?;
            }
            0x85..=0x87 => self.short_tuple(usize::from(code - 0x84))?,
            b'a' | b'e' | b's' | b'u' | 0x90 => self.fill(code)?,
            b'h' | b'j' | b'q' | b'r' | 0x94 => self.remember(code)?,
            b'c' => self.push_global_lines()?,
            0x93 => self.push_global_texts()?,
            b'Q' => self.push_storage()?,
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            other => {
                let advice = "save only the tensors: torch.save(network.state_dict(), FILE)";
                return Err(self
                    .wrong("an instruction that checkpoints use", format!("0x{other:02x}"))
                    .and_then_do(advice));
            }
        }
        Ok(false)
    }

    fn protocol(&mut self) -> Result<()> {
        match self.number::<1>()? {
            2..=5 => Ok(()),
            other => Err(self.wrong("pickle's protocol 2 to 5", other)),
        }
    }

    fn take(&mut self, length: usize) -> Result<&[u8]> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            let left = self.bytes.len() - self.at;
            return Err(self.wrong(format!("{length} more bytes"), format!("{left}, the file is cut off")));
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// A little-endian number of `N` bytes.
    fn number<const N: usize>(&mut self) -> Result<u64> {
        let bytes = self.take(N)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    pub(super) fn push(&mut self, node: Node) -> Result<()> {
        self.nodes.push(node);
        self.push_again(self.nodes.len() - 1)
    }

    fn push_again(&mut self, id: Id) -> Result<()> {
        if self.nodes.len() > MOST_VALUES || self.stack.len() == MOST_VALUES {
            return Err(self.wrong(format!("at most {MOST_VALUES} values"), "more"));
        }
        self.stack.push(id);
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Result<Id> {
        let bottom = self.marks.last().copied().unwrap_or_default();
        match self.stack.pop() {
            Some(id) if self.stack.len() >= bottom => Ok(id),
            _ => Err(self.wrong("a value on the stack", "none")),
        }
    }

    fn discard(&mut self) -> Result<()> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        match self.marks.pop() {
            Some(height) if height <= self.stack.len() => Ok(self.stack.split_off(height)),
            _ => Err(self.wrong("a mark on the stack", "none")),
        }
    }

    fn push_number(&mut self, code: u8) -> Result<()> {
        let value = match code {
            b'N' => PickleValue::None,
            0x88 | 0x89 => PickleValue::Bool(code == 0x88),
            b'J' => PickleValue::Int(i128::from(self.number::<4>()? as u32 as i32)),
            b'K' => PickleValue::Int(i128::from(self.number::<1>()?)),
            b'M' => PickleValue::Int(i128::from(self.number::<2>()?)),
            b'G' => PickleValue::Float(f64::from_bits(self.number::<8>()?.swap_bytes())),
            _ => PickleValue::Int(self.long()?),
        };
        self.push(Node::Plain(value))
    }

    /// A whole number in two's complement, after its length in bytes.
    fn long(&mut self) -> Result<i128> {
        let length = self.number::<1>()? as usize;
        if length > 16 {
            return Err(self.wrong("a number of at most 16 bytes", length));
        }
        let bytes = self.take(length)?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 16];
        wide[..length].copy_from_slice(bytes);
        Ok(i128::from_le_bytes(wide))
    }

    fn push_text<const N: usize>(&mut self) -> Result<()> {
        let length = usize::try_from(self.number::<N>()?).unwrap_or(usize::MAX);
        let text = std::str::from_utf8(self.take(length)?).ok().map(Arc::from);
        let text = text.ok_or_else(|| self.wrong("text in UTF-8", "other bytes"))?;
        self.push(Node::Plain(PickleValue::Text(text)))
    }

    fn push_bytes<const N: usize>(&mut self) -> Result<()> {
        let length = usize::try_from(self.number::<N>()?).unwrap_or(usize::MAX);
        let bytes = PickleValue::Bytes(Arc::from(self.take(length)?));
        self.push(Node::Plain(bytes))
    }

    fn short_tuple(&mut self, length: usize) -> Result<()> {
        let mut items = (0..length).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
        items.reverse();
        self.push(Node::Tuple(items))
    }

    /// Appends to the list or set, or sets keys of the dictionary, that lies below the values.
    fn fill(&mut self, code: u8) -> Result<()> {
        let values = match code {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_mark()?,
        };
        let target = self.top()?;
        match (&mut self.nodes[target], code) {
            (Node::List(items), b'a' | b'e') | (Node::Set(items), 0x90) => items.extend(values),
            (Node::Dict(entries), b's' | b'u') if values.len().is_multiple_of(2) => {
                entries.extend(values.chunks_exact(2).map(|pair| (pair[0], pair[1])));
            }
            _ => return Err(self.wrong("a list, dictionary or set to fill", "something else")),
        }
        Ok(())
    }

    fn top(&self) -> Result<Id> {
        let bottom = self.marks.last().copied().unwrap_or_default();
        let top = self.stack.last().filter(|_| self.stack.len() > bottom);
        top.copied().ok_or_else(|| self.wrong("a value on the stack", "none"))
    }

    fn remember(&mut self, code: u8) -> Result<()> {
        let key = match code {
            b'h' | b'q' => self.number::<1>()?,
            b'j' | b'r' => self.number::<4>()?,
            _ => self.memo.len() as u64,
        } as u32;
        if matches!(code, b'h' | b'j') {
            let known = self.memo.get(&key).copied();
            let id = known.ok_or_else(|| self.wrong(format!("value {key} to be known"), "none of it"))?;
            return self.push_again(id);
        }
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    /// A function or class, by two lines of text.
    fn push_global_lines(&mut self) -> Result<()> {
        let module = self.line()?;
        let name = self.line()?;
        self.push_global(&module, &name)
    }

    fn line(&mut self) -> Result<String> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n');
        let length = length.ok_or_else(|| self.wrong("a line's end", "none, the file is cut off"))?;
        let line = self.take(length + 1)?[..length].to_vec();
        String::from_utf8(line).map_err(|_| self.wrong("a name in UTF-8", "other bytes"))
    }

    fn push_global_texts(&mut self) -> Result<()> {
        let name = self.pop()?;
        let module = self.pop()?;
        let module = self.text(module)?;
        let name = self.text(name)?;
        self.push_global(&module, &name)
    }

    fn push_global(&mut self, module: &str, name: &str) -> Result<()> {
        let known = Global::named(module, name).ok_or_else(|| {
            let advice = "save only the tensors: torch.save(network.state_dict(), FILE)";
            let got = format!("{module:.80}.{name:.80}");
            self.wrong("names that a checkpoint of tensors needs", got).and_then_do(advice)
        })?;
        match known {
            Global::Type(name) => self.push(Node::Plain(PickleValue::Text(Arc::from(name)))),
            known => self.push(Node::Global(known)),
        }
    }

    pub(super) fn text(&self, id: Id) -> Result<Arc<str>> {
        match &self.nodes[id] {
            Node::Plain(PickleValue::Text(text)) => Ok(text.clone()),
            _ => Err(self.wrong("a text", "something else")),
        }
    }

    /// The state of an object: hooks and versions next to the entries of a dictionary, which no tensor needs.
    fn build(&mut self) -> Result<()> {
        self.pop()?;
        let target = self.top()?;
        match self.nodes[target] {
            Node::Dict(_) => Ok(()),
            _ => Err(self.wrong("a dictionary that gets a state", "something else")),
        }
    }

    /// The tree of a value; `left` bounds its size, for shared values stand in it as often as they are named.
    fn value(&self, id: Id, depth: usize, left: &mut usize) -> Result<PickleValue> {
        if depth == 0 || *left == 0 {
            let expected = format!("at most {MOST_VALUES} values, at most {DEEPEST} deep in one another");
            return Err(self.wrong(expected, "more"));
        }
        *left -= 1;
        let mut inner = |id: Id| self.value(id, depth - 1, left);
        Ok(match &self.nodes[id] {
            Node::Plain(value) => value.clone(),
            Node::List(items) => PickleValue::List(items.iter().map(|id| inner(*id)).collect::<Result<_>>()?),
            Node::Set(items) => PickleValue::Set(items.iter().map(|id| inner(*id)).collect::<Result<_>>()?),
            Node::Tuple(items) => {
                PickleValue::Tuple(items.iter().map(|id| inner(*id)).collect::<Result<_>>()?)
            }
            Node::Dict(entries) => PickleValue::Dict(
                entries
                    .iter()
                    .map(|(key, value): &(Id, Id)| Ok((inner(*key)?, inner(*value)?)))
                    .collect::<Result<_>>()?,
            ),
            Node::Global(_) => return Err(self.wrong("plain values and tensors", "a function or class")),
            Node::Storage(_) => return Err(self.wrong("plain values and tensors", "a storage by itself")),
        })
    }

    fn reduce(&mut self) -> Result<()> {
        let arguments = self.pop()?;
        let function = self.pop()?;
        let Node::Tuple(arguments) = &self.nodes[arguments] else {
            return Err(self.wrong("arguments in a tuple", "something else"));
        };
        let arguments = arguments.clone();
        match (&self.nodes[function], arguments.as_slice()) {
            (Node::Global(Global::OrderedDict), []) => self.push(Node::Dict(Vec::new())),
            (Node::Global(Global::Size | Global::Device | Global::Parameter), &[first, ..]) => {
                self.push_again(first)
            }
            (Node::Global(Global::Tensor), arguments) => {
                let tensor = Arc::new(stored_tensor(self, arguments)?);
                self.push(Node::Plain(PickleValue::Tensor(tensor)))
            }
            (Node::Global(Global::Set), arguments) => {
                let items = self.set_items(arguments)?;
                self.push(Node::Set(items))
            }
            (Node::Global(Global::Complex), &[_, _]) => self.push(Node::Tuple(arguments)),
            (Node::Global(Global::Encode), &[text, _]) => {
                let bytes = self.latin1(text)?;
                self.push(Node::Plain(PickleValue::Bytes(bytes)))
            }
            (Node::Global(Global::Bytes), []) => self.push(Node::Plain(PickleValue::Bytes(Arc::from([])))),
            (Node::Global(Global::Bytes), &[bytes]) if self.is_bytes(bytes) => self.push_again(bytes),
            _ => Err(self.wrong("a call that a checkpoint of tensors needs", "another")),
        }
    }
}
