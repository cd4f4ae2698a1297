-- Takes Lua source apart: kinds of lines, functions and their lengths, identifiers. Plain Lua, the same in every
-- version; it takes any text, and of one that is not valid Lua it makes what it can.

local source = {}

local find, gsub, match, sub = string.find, string.gsub, string.match, string.sub

local function set(words)
  local members = {}
  for word in words:gmatch("%S+") do
    members[word] = true
  end
  return members
end

local KEYWORDS = set([[
  and break do else elseif end false for function goto if in local nil not or repeat return then true until while
]])
-- What begins a block and what ends one. `for` and `while` are left out: the block begins with their `do`.
local OPENING, CLOSING = set("do function if repeat"), set("end until")
-- How far before a function we look for what it is assigned to.
local LONGEST_NAME = 80

--- The last position of the long bracket that begins at `at`; nil if none does. What is never closed goes on to the
--- end, here and below.
local function long_bracket_end(text, at)
  local _, opened, level = find(text, "^%[(=*)%[", at)
  if not opened then return nil end
  local _, closed = find(text, "]" .. level .. "]", opened + 1, true)
  return closed or #text
end

local function line_end(text, at)
  return (find(text, "\n", at, true) or #text + 1) - 1
end

--- An end of line needs no care: within quotes it is valid only after a backslash, and the string goes on after it.
local function quoted_end(text, quote, at)
  repeat
    at = find(text, '[\\' .. quote .. ']', at + 1)
    if not at then return #text end
    local found = sub(text, at, at)
    if found == "\\" then at = at + 1 end
  until found == quote
  return at
end

--- What the token that begins at `at` is, "word", "comment" or "other", and its last position.
local function token_at(text, at)
  local _, last = find(text, "^[%a_][%w_]*", at)
  if last then return "word", last end
  local first = sub(text, at, at)
  if first == '"' or first == "'" then return "other", quoted_end(text, first, at) end
  if first == "[" then return "other", long_bracket_end(text, at) or at end
  if find(text, "^%-%-", at) then return "comment", long_bracket_end(text, at + 2) or line_end(text, at) end
  if first == "#" and at == 1 then return "comment", line_end(text, at) end -- "#!/usr/bin/env lua"
  _, last = find(text, "^%d[%w.]*", at) -- the "xff" of 0xff is no identifier
  return "other", last or at
end

--- A function that tells the line of a position, for positions that only ever grow.
local function line_teller(text)
  local line, newline = 1, find(text, "\n", 1, true)
  return function(position)
    while newline and newline < position do
      line, newline = line + 1, find(text, "\n", newline + 1, true)
    end
    return line
  end
end

--- Iterates over the tokens: what each is, its text, the lines that it begins and ends in, the position behind it.
local function tokens(text)
  local line_of, behind = line_teller(text), 1
  return function()
    local first = find(text, "%S", behind)
    if not first then return nil end
    local kind, last = token_at(text, first)
    behind = last + 1
    return kind, sub(text, first, last), line_of(first), line_of(last), behind
  end
end

--- Counts a function that ends in `line`, if it is the longest up to now.
local function close_function(report, opened, line)
  local length = line - opened.line + 1
  if not report.longest or length > report.longest.length then
    report.longest = { name = opened.name, line = opened.line, length = length }
  end
end

--- Follows the blocks: `blocks` holds the open ones, with name and line those that are functions.
local function follow_blocks(report, blocks, word, line, name)
  if word == "function" then
    report.functions = report.functions + 1
    blocks[#blocks + 1] = { name = name, line = line }
  elseif OPENING[word] then
    blocks[#blocks + 1] = {}
  elseif CLOSING[word] then
    local block = table.remove(blocks)
    if block and block.line then close_function(report, block, line) end
  end
end

--- A code line is one with any code on it, a comment line one with nothing but comment; long strings are code, and
--- empty lines inside of long comments are comment.
local function count_lines(report, text, kinds)
  local _, newlines = gsub(text, "\n", "")
  local is_last_ended = text == "" or sub(text, -1) == "\n"
  report.lines = is_last_ended and newlines or newlines + 1
  for line = 1, report.lines do
    local kind = kinds[line] or "blank"
    report[kind] = report[kind] + 1
  end
end

--- Notes what these lines hold. Code outweighs comment.
local function mark_lines(kinds, kind, first, last)
  for line = first, last do
    if kinds[line] ~= "code" then kinds[line] = kind end
  end
end

--- The name of the function whose parameters begin at `behind`: it follows the keyword, or stands before "= function".
local function function_name(text, behind)
  local name = match(text, "^%s*([%a_][%w_.:]*)", behind)
  if name then return name end
  local before = sub(text, math.max(1, behind - LONGEST_NAME - #"function"), behind - #"function" - 1)
  return match(before, "([%a_][%w_.]*)%s*=%s*$") or "anonymous"
end

--- Counts the lines, all and by kind, the functions and each identifier, and finds the longest function (nil if there
--- is none; nested functions count for themselves and for the one around them).
function source.analyse(text)
  local report = { lines = 0, code = 0, comment = 0, blank = 0, functions = 0, identifiers = {} }
  local kinds, blocks, identifiers = {}, {}, report.identifiers
  for kind, token, first_line, last_line, behind in tokens(text) do
    mark_lines(kinds, kind == "comment" and "comment" or "code", first_line, last_line)
    if kind == "word" and KEYWORDS[token] then
      local name = token == "function" and function_name(text, behind)
      follow_blocks(report, blocks, token, first_line, name)
    elseif kind == "word" then
      identifiers[token] = (identifiers[token] or 0) + 1
    end
  end
  count_lines(report, text, kinds)
  return report
end

--- Analyses a file; returns nil and the reason if it cannot be read.
function source.analyse_file(path)
  local file, failure = io.open(path, "rb")
  if not file then return nil, (failure:gsub("^.*: ", "")) end -- the message begins with the path
  local text, reason = file:read("*a")
  file:close()
  if not text then return nil, reason end
  return source.analyse(text)
end

return source
