-- Writes THIRD-PARTY.md to standard output: whose work is linked into the module, from the licences that the crates
-- have in cargo's cache. It stops at a crate whose terms are not those that the page states.

local HEAD = [[
# Third-party software

On Linux and macOS the compiled module, `scheduler.so`, contains the Rust crates below, mimalloc, and parts of Rust's
standard library. All of them may be used under the MIT License, which asks that their notices go wherever a copy goes:
who passes on a compiled module passes on this page with it. The sources here contain none of them; cargo fetches them
for a build.

`make notices` writes this page.

| what | copyright |
|---|---|
]]

local RUST = "| Rust's standard library | The Rust Project Contributors. What it contains of others stands in "
  .. "`share/doc/rust/COPYRIGHT-library.html` of each Rust toolchain |\n"

local function read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("*a")
  file:close()
  return text
end

local function output_of(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read("*a")
  pipe:close()
  return text
end

--- The text from "Permission is hereby granted", without what differs only in form.
local function terms_of(text)
  local words = text:match("Permission is hereby granted.*"):lower():gsub("%s+", " ")
  return (words:gsub(" %(including the next paragraph%)", ""):gsub(" $", ""))
end

local OURS = assert(read("LICENSE"))
local PERMISSION = OURS:match("Permission is hereby granted.*")

--- Whose work it is, by the lines of a licence above its terms.
local function owners_of(licence)
  local owners = {}
  for line in licence:match("^(.-)Permission is hereby granted"):gmatch("[^\r\n]+") do
    local owner = line:match("^%s*Copyright%s+(.-),?%s*$")
    owners[#owners + 1] = owner and owner:gsub("^%([cC]%)%s*", "") or nil
  end
  return table.concat(owners, "; "):gsub("[<>]", "")
end

--- The MIT licence that lies in a folder.
local function licence_in(folder)
  for _, name in ipairs({ "LICENSE-MIT", "LICENSE", "LICENSE.txt" }) do
    local text = read(folder .. "/" .. name)
    if text then return text end
  end
end

local function row(name, licence)
  assert(terms_of(licence) == terms_of(OURS), name .. " has other terms than those of the MIT License")
  local owners = owners_of(licence)
  return ("| %s | %s |\n"):format(name, owners:find("%a") and owners or (owners .. " its authors"):gsub("^ ", ""))
end

--- Where cargo keeps the sources of the crates, by name and version.
local function folders()
  local found = {}
  local host = output_of("rustc -vV"):match("host: (%S+)")
  local metadata = output_of("cargo metadata --locked --format-version 1 --features lua54 --filter-platform " .. host)
  for folder, crate in metadata:gmatch('"manifest_path":"([^"]-([^/"]+))/Cargo.toml"') do
    found[crate] = folder
  end
  return found
end

--- Crates whose licence lies with another one, of the same repository.
local LICENSED_WITH = { ["mlua-sys"] = "mlua" }

--- Comes with a crate.
local C_LIBRARY = "mimalloc, the C library"

local function rows()
  local folder_of, found, licence_of = folders(), {}, {}
  local tree = output_of("cargo tree --locked --features lua54 --edges normal,no-proc-macro --prefix none --no-dedupe "
    .. "--format '{p}|{l}'")
  for name, version, terms in tree:gmatch("([%w_-]+) v([^ |\n]+)[^|\n]*|([^\n]*)") do
    assert(terms:find("MIT", 1, true), name .. " is not under the MIT License")
    if name ~= "scheduler" then
      local folder = assert(folder_of[name .. "-" .. version], name .. " is not in the cache")
      licence_of[name] = licence_in(folder)
      found[name] = true
      if name == "libmimalloc-sys" then
        licence_of[C_LIBRARY] = read(folder .. "/c_src/mimalloc/v2/LICENSE")
        found[C_LIBRARY] = true
      end
    end
  end
  local lines = {}
  for name in pairs(found) do
    local licence = licence_of[LICENSED_WITH[name] or name]
    lines[#lines + 1] = row(name, assert(licence, name .. " has no licence"))
  end
  table.sort(lines)
  return table.concat(lines)
end

io.write(HEAD, rows(), RUST, "\n", PERMISSION)
