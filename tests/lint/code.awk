# Prints "FILE:LINE:CODE" for each line of C that matches `pattern` once comments are taken out and
# texts and characters emptied. States carry over lines: a comment may span many.
FNR == 1 { in_comment = 0 }
{
    line = $0
    code = ""
    n = length(line)
    for (i = 1; i <= n; i++) {
        c = substr(line, i, 1)
        two = substr(line, i, 2)
        if (in_comment) {
            if (two == "*/") {
                in_comment = 0
                i++
            }
        } else if (two == "/*") {
            in_comment = 1
            i++
        } else if (two == "//") {
            break
        } else if (c == "\"" || c == "'") {
            code = code c c
            for (i++; i <= n && substr(line, i, 1) != c; i++)
                if (substr(line, i, 1) == "\\")
                    i++
        } else {
            code = code c
        }
    }
    if (code ~ pattern)
        print FILENAME ":" FNR ":" code
}
