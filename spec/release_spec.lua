-- What a release says of itself: its version, the commands that its pages name, what it needs of the system.

local scheduler = require("scheduler")

local function read(path)
  local file = assert(io.open(path, "rb"))
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

--- What `make` can be told to make.
local function targets()
  local known = {}
  local makefile = read("Makefile"):gsub("%$%(LUAS:%%=([%w-]*)%%%)", "%1lua5.4")
  for names in makefile:gmatch("\n([^\n:=#]+):") do
    for word in names:gmatch("%S+") do
      known[word] = true
    end
  end
  return known
end

local FORMS = { "^make ([%w.-]+)", "%w=%S+ make ([%w.-]+)", "&& make ([%w.-]+)" }

--- Iterates over the commands for `make` in a page or a workflow: each with what is to be made.
local function commands(text)
  local found = {}
  for line in text:gmatch("[^\n]+") do
    for code in ("`" .. line:gsub("^%s*%- run: ", "") .. "`"):gmatch("[^`]+") do
      for _, form in ipairs(FORMS) do
        local target = code:match(form)
        if target then found[code] = target:gsub("luajit$", "lua5.4") end
      end
    end
  end
  return pairs(found)
end

--- The file that `require` takes the module from.
local function module_file()
  for pattern in package.cpath:gmatch("[^;]+") do
    local path = pattern:gsub("%?", "scheduler")
    local file = io.open(path, "rb")
    if file then
      file:close()
      return path
    end
  end
end

describe("a release", function()
  local version = read("Cargo.toml"):match('\nversion = "(.-)"')
  local rockspec = output_of("ls rockspec/*.rockspec"):match("%S+")

  it("has the same version everywhere", function()
    local text = read(rockspec)
    local rock_version = text:match('\nversion = "(.-)"')
    assert.are.equal(version, scheduler._VERSION)
    assert.are.equal(version, rock_version:match("^(.*)%-%d+$"))
    assert.are.equal("v" .. version, text:match('\n  tag = "(.-)"'))
    assert.are.equal(("rockspec/scheduler-%s.rockspec"):format(rock_version), rockspec)
    assert.is_truthy(read("CHANGELOG.md"):find("\n## [" .. version .. "] - 20", 1, true))
    for _, page in ipairs({ "README.md", "docs/guide/index.md" }) do
      assert.is_truthy(read(page):find("make " .. rockspec, 1, true), page .. " names another rockspec")
    end
  end)

  it("names commands that make knows", function()
    local known = targets()
    for _, path in ipairs({ "README.md", "CONTRIBUTING.md", "docs/guide/index.md", ".github/workflows/ci.yml" }) do
      for command, target in commands(read(path)) do
        assert.is_true(known[target], ("%s: %s"):format(path, command))
      end
    end
  end)

  local libc = output_of("ldd --version 2>&1")
  local has_objdump = output_of("objdump --version 2>&1"):find("GNU objdump", 1, true)
  -- On a system newer than the one that is spoken of, the module may take newer functions.
  local can_tell = has_objdump and libc:find("GLIBC", 1, true) and tonumber(libc:match("2%.(%d+)")) <= 36
  local where_it_tells = can_tell and it or pending

  where_it_tells("needs no newer glibc than the README says", function()
    local stated = tonumber(read("README.md"):match("glibc 2%.(%d+) or later"))
    local needed = 0
    for minor in output_of("objdump -T '" .. assert(module_file()) .. "'"):gmatch("GLIBC_2%.(%d+)") do
      needed = math.max(needed, tonumber(minor))
    end
    assert.are.equal(stated, needed)
  end)
end)
