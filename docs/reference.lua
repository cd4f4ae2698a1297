-- The reference as Markdown, from the types that editors read: types/scheduler.lua is the one source of both.
--
-- The file is read in blocks that blank lines part: the comment of a class, an alias or a function, and the line of
-- code that it belongs to.

local reference = {}

-- Reading -----------------------------------------------------------------------------------------------------------

--- The end of a type in a text: a blank that stands in no brackets and no string, and after which it does not go on.
local function end_of_type(text)
  local depth, i = 0, 1
  while i <= #text do
    local char = text:sub(i, i)
    if char == '"' then
      i = text:find('"', i + 1, true) or #text
    elseif char:find("[%(%[{<]") then
      depth = depth + 1
    elseif char:find("[%)%]}>]") then
      depth = depth - 1
    elseif char == " " and depth == 0 and not text:sub(1, i - 1):find("[:|,]$") then
      return i
    end
    i = i + 1
  end
  return #text + 1
end

--- Splits "type and the rest".
local function split_type(text)
  local stop = end_of_type(text)
  return text:sub(1, stop - 1), (text:sub(stop + 1))
end

--- What each tag adds to the entry of a block.
local tags = {}

function tags.class(entry, text)
  entry.kind, entry.name = "class", text:match("^[%w_.]+")
end

function tags.alias(entry, text)
  entry.kind = "alias"
  entry.name, entry.type = text:match("^(%S+)%s*(.*)$")
end

local function named(text)
  local name, optional, rest = text:match("^([%w_.]+)(%??)%s+(.*)$")
  if not name then
    name, optional, rest = text:match("^(%b[])(%??)%s+(.*)$")
  end
  local type_name, description = split_type(rest)
  return { name = name, is_optional = optional ~= "", type = type_name, text = description }
end

function tags.field(entry, text)
  local field = named(text)
  if #entry.loose > 0 then
    field.text = table.concat(entry.loose, "\n")
    entry.loose = {}
  end
  table.insert(entry.fields, field)
end

function tags.param(entry, text)
  table.insert(entry.params, named(text))
end

tags["return"] = function(entry, text)
  local type_name, rest = split_type(text)
  local name, description = rest:match("^(%S+)%s*(.*)$")
  table.insert(entry.returns, { name = name, type = type_name, text = description or "" })
end

function tags.operator(entry, text)
  local operator = text:match("^%w+")
  if operator == "len" then table.insert(entry.text, "\nIt has the operator `#`.") end
end

local function ignored() end
tags.generic, tags.overload, tags.meta = ignored, ignored, ignored

local function new_entry()
  return { text = {}, fields = {}, params = {}, returns = {}, values = {}, loose = {} }
end

--- Takes a line of a comment, without its dashes.
local function take_comment(entry, line)
  local tag, rest = line:match("^@(%w+)%s*(.*)$")
  if tag then
    assert(tags[tag], "a tag that is not known: " .. tag)(entry, rest)
  elseif line:find("^| ") then
    local value, text = line:match('^| (%S+)%s*#?%s*(.*)$')
    table.insert(entry.values, { value = value, text = text })
  else
    -- Text behind the name of a class is about the field that follows.
    table.insert(entry.kind == "class" and entry.loose or entry.text, line)
  end
end

--- Takes the line of code that a comment belongs to.
local function take_code(entry, line, owners)
  local path, arguments = line:match("^function ([%w_.:]+)%((.-)%) end$")
  if not path then
    local owner, name
    owner, name, arguments = line:match('^(%w+)%["(%w+)"%] = function%((.-)%) end$')
    path = owner and owner .. "." .. name
  end
  if path then
    entry.kind, entry.path, entry.arguments = "function", path, arguments
    local owner = path:match("^(%w+)[.:]")
    entry.owner = owners[owner] or owner
    return
  end
  local variable = line:match("^local (%w+) = ")
  if variable and entry.name then owners[variable] = entry.name end
end

local function is_used(entry)
  return entry.kind ~= nil
end

--- Reads the file into sections: a title, a text, and entries in their order.
function reference.read(source)
  local sections, owners = { { title = "Common types", text = {}, entries = {} } }, {}
  local entry = new_entry()
  local function close()
    local section = sections[#sections]
    if is_used(entry) then table.insert(section.entries, entry) end
    entry = new_entry()
  end
  for line in (source .. "\n"):gmatch("(.-)\n") do
    local section = sections[#sections]
    local title = line:match("^%-%- (.-) %-%-%-+$")
    if title then
      close()
      table.insert(sections, { title = title, text = {}, entries = {} })
    elseif line:find("^%-%-%-") then
      take_comment(entry, (line:sub(4)))
    elseif line:find("^%-%-") then
      table.insert(section.text, (line:gsub("^%-%- ?", "")))
    elseif line == "" then
      close()
      if section.text[1] then table.insert(section.text, "") end
    else
      take_code(entry, line, owners)
    end
  end
  close()
  return sections
end

-- Writing -----------------------------------------------------------------------------------------------------------

local ESCAPES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }

local function escape(text)
  return (text:gsub('[&<>"]', ESCAPES))
end

--- What methods are shown to be called on.
local RECEIVERS = {
  ["scheduler.PromiseOf"] = "promise",
  ["scheduler.PromiseError"] = "error",
  ["scheduler.PromiseClass"] = "Promise",
}

local function receiver_of(owner)
  return RECEIVERS[owner] or owner:match("([%w_]+)$"):lower()
end

--- A function as it is called: `scheduler.task.spawn`, `queue:push`.
local function called(entry)
  local owner, separator, name = entry.path:match("^(%w+)([.:])(.+)$")
  if owner == "scheduler" then return entry.path end
  return receiver_of(entry.owner) .. separator .. name
end

local function id_of(entry)
  if entry.kind ~= "function" then return entry.name end
  if entry.path:find("^scheduler") then return entry.path end
  return entry.owner .. entry.path:match("^%w+(.*)$")
end

reference.id_of, reference.called = id_of, called

local function signature(entry)
  local optional, shown = {}, {}
  for _, param in ipairs(entry.params) do
    optional[param.name] = param.is_optional
  end
  for name in entry.arguments:gmatch("[%w_.]+") do
    shown[#shown + 1] = optional[name] and "[" .. name .. "]" or name
  end
  return called(entry) .. "(" .. table.concat(shown, ", ") .. ")"
end

--- A type as HTML: names of the reference are links.
local function type_in_html(type_name, ids)
  return (escape(type_name):gsub("scheduler[%w_.]*", function(name)
    if not ids[name] then return name end
    return ('<a href="#%s">%s</a>'):format(name, name:gsub("^scheduler%.", ""))
  end))
end

local function add(lines, form, ...)
  lines[#lines + 1] = select("#", ...) > 0 and form:format(...) or form
end

--- A list of names with their types and what they mean.
local function write_list(lines, title, items, ids)
  if #items == 0 then return end
  add(lines, '\n<p class="label">%s</p>\n<dl>', title)
  for _, item in ipairs(items) do
    local name = item.name and ("<code>%s</code> "):format(escape(item.name)) or ""
    local optional = item.is_optional and ", optional" or ""
    add(lines, '<dt>%s<span class="type">%s%s</span></dt>', name, type_in_html(item.type, ids), optional)
    if item.text ~= "" then add(lines, "<dd>\n\n%s\n\n</dd>", item.text) end
  end
  add(lines, "</dl>\n")
end

local writers = {}

writers["function"] = function(lines, entry, ids)
  add(lines, '<h3 id="%s"><code>%s</code></h3>\n', id_of(entry), escape(signature(entry)))
  add(lines, table.concat(entry.text, "\n"))
  write_list(lines, "Arguments", entry.params, ids)
  write_list(lines, "Returns", entry.returns, ids)
end

function writers.class(lines, entry, ids)
  add(lines, '<h3 id="%s" class="type-name"><code>%s</code></h3>\n', entry.name, entry.name)
  add(lines, table.concat(entry.text, "\n"))
  write_list(lines, "Fields", entry.fields, ids)
end

function writers.alias(lines, entry, ids)
  add(lines, '<h3 id="%s" class="type-name"><code>%s</code></h3>\n', entry.name, entry.name)
  add(lines, table.concat(entry.text, "\n"))
  if entry.type ~= "" then add(lines, '\n<p class="type">%s</p>\n', type_in_html(entry.type, ids)) end
  local values = {}
  for i, item in ipairs(entry.values) do
    values[i] = { type = item.value, text = item.text }
  end
  write_list(lines, "Values", values, ids)
end

--- The names of a section, as links.
local function write_index(lines, section)
  local links = {}
  for _, entry in ipairs(section.entries) do
    local shown = entry.kind == "function" and called(entry) or entry.name
    links[#links + 1] = ('<li><a href="#%s"><code>%s</code></a></li>'):format(id_of(entry), shown)
  end
  if #links > 0 then add(lines, '\n<ul class="index">%s</ul>\n', table.concat(links)) end
end

--- All names that types and texts may refer to, with their ids: `scheduler.Queue:push`, and as it is called,
--- `queue:push`.
function reference.ids(sections)
  local ids = {}
  for _, section in ipairs(sections) do
    for _, entry in ipairs(section.entries) do
      local id = id_of(entry)
      local short = entry.kind == "function" and called(entry):gsub("^scheduler%.", "") or id
      ids[id], ids[short] = id, ids[short] or id
    end
  end
  return ids
end

local function write_entries(lines, section, ids)
  write_index(lines, section)
  for _, entry in ipairs(section.entries) do
    add(lines, "")
    writers[entry.kind](lines, entry, ids)
  end
end

--- Links to the sections.
local function write_contents(lines, sections)
  local links = {}
  for i = 2, #sections + 1 do
    local title = (sections[i] or sections[1]).title
    links[#links + 1] = ('<li><a href="#%s">%s</a></li>'):format(title:lower():gsub(" ", "-"), title)
  end
  add(lines, '\n<ul class="index">%s</ul>\n', table.concat(links))
end

--- The reference as one page of Markdown. What stands at the head of the file comes first, the types there last.
function reference.write(sections)
  local lines, ids = { "# Reference\n" }, reference.ids(sections)
  write_contents(lines, sections)
  add(lines, table.concat(sections[1].text, "\n"))
  for i = 2, #sections do
    add(lines, "\n## " .. sections[i].title .. "\n")
    add(lines, table.concat(sections[i].text, "\n"))
    write_entries(lines, sections[i], ids)
  end
  add(lines, "\n## " .. sections[1].title .. "\n")
  write_entries(lines, sections[1], ids)
  return table.concat(lines, "\n")
end

return reference
