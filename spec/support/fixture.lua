-- A module for workers to find.
return {
  square = function(n)
    return n * n
  end,
}
