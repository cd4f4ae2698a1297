-- What was found in many files: collected, added up, shown.

local report = {}

local COLUMNS = { "lines", "code", "comment", "blank", "functions" }
local LARGEST_FILES, TOP_IDENTIFIERS = 10, 10

function report.new()
  return { files = {}, skipped = {}, identifiers = {} }
end

local function append(list, more)
  for _, item in ipairs(more) do
    list[#list + 1] = item
  end
end

local function add_counts(counts, more)
  for name, count in pairs(more) do
    counts[name] = (counts[name] or 0) + count
  end
end

--- Takes in the analysis of one file. Its identifiers are kept in the sum only: they are most of what there is.
function report.add_file(all, path, analysis)
  add_counts(all.identifiers, analysis.identifiers)
  analysis.path, analysis.identifiers = path, nil
  table.insert(all.files, analysis)
end

function report.add_skipped(all, path, reason)
  table.insert(all.skipped, { path = path, reason = reason })
end

--- Takes in another report.
function report.add(all, part)
  append(all.files, part.files)
  append(all.skipped, part.skipped)
  add_counts(all.identifiers, part.identifiers)
end

--- Whether two reports, or any two tables without cycles, hold the same.
function report.equal(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for key, value in pairs(a) do
    if not report.equal(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

local function width_of(rows, column)
  local width = 0
  for _, row in ipairs(rows) do
    width = math.max(width, #tostring(row[column]))
  end
  return width
end

--- Prints rows of texts and numbers under a row of headings, numbers to the right.
local function print_table(rows)
  local lines = {}
  for column = 1, #rows[1] do
    local width, is_number = width_of(rows, column), type(rows[2][column]) == "number"
    for i, row in ipairs(rows) do
      local text = tostring(row[column])
      local padding = (" "):rep(width - #text) -- formats go no further than "%99s"
      lines[i] = (lines[i] and lines[i] .. "  " or "") .. (is_number and padding .. text or text .. padding)
    end
  end
  for _, line in ipairs(lines) do
    print((line:gsub(" +$", "")))
  end
  print()
end

--- A name in which nothing upsets the terminal.
local function printable(path)
  return (path:gsub("%c", "?"))
end

local function file_row(file, longest)
  local row = { printable(file.path) }
  for _, column in ipairs(COLUMNS) do
    row[#row + 1] = file[column]
  end
  row[#row + 1] = longest and ("%s, %d lines"):format(longest.name, longest.length) or ""
  return row
end

local function total_row(files)
  local total = { path = "all files" }
  for _, column in ipairs(COLUMNS) do
    total[column] = 0
    for _, file in ipairs(files) do
      total[column] = total[column] + file[column]
    end
  end
  return file_row(total)
end

--- The files with most lines come first, of equal ones that with the first name.
local function largest_first(files)
  local sorted = {}
  append(sorted, files)
  table.sort(sorted, function(a, b)
    if a.lines ~= b.lines then return a.lines > b.lines end
    return a.path < b.path
  end)
  return sorted
end

local function print_files(files)
  local rows = { { "largest files" } }
  append(rows[1], COLUMNS)
  append(rows[1], { "longest function" })
  local sorted = largest_first(files)
  for i = 1, math.min(#sorted, LARGEST_FILES) do
    rows[i + 1] = file_row(sorted[i], sorted[i].longest)
  end
  rows[#rows + 1] = total_row(files)
  print_table(rows)
end

local function print_longest_function(files)
  local home
  for _, file in ipairs(files) do
    if file.longest and (not home or file.longest.length > home.longest.length) then home = file end
  end
  if not home then return end
  local longest, place = home.longest, printable(home.path) .. ":" .. home.longest.line
  print(("longest function: %s, %d lines (%s)\n"):format(longest.name, longest.length, place))
end

local function print_identifiers(identifiers)
  local sorted = {}
  for name, count in pairs(identifiers) do
    sorted[#sorted + 1] = { name, count }
  end
  table.sort(sorted, function(a, b)
    if a[2] ~= b[2] then return a[2] > b[2] end
    return a[1] < b[1]
  end)
  local rows = { { "most used", "times" } }
  for i = 1, math.min(#sorted, TOP_IDENTIFIERS) do
    rows[i + 1] = sorted[i]
  end
  if rows[2] then print_table(rows) end
end

local function print_skipped(skipped)
  if #skipped == 0 then return end
  print(("skipped: %d"):format(#skipped))
  for _, file in ipairs(skipped) do
    print(("  %s: %s"):format(printable(file.path), file.reason))
  end
  print()
end

--- Prints what was found: the largest files and the sum of all, the longest function, the most used identifiers.
function report.print(all)
  if #all.files > 0 then
    print_files(all.files)
    print_longest_function(all.files)
    print_identifiers(all.identifiers)
  end
  print_skipped(all.skipped)
end

return report
