# Completions of pgiam for fish. pgiam itself returns the words, for the line up to the cursor.
function __pgiam_complete
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    set -l word (commandline --current-token --cut-at-cursor)
    set -l program pgiam
    string match --quiet '*/*' -- $words[1]; and set program (string replace --regex '^~' $HOME -- $words[1])
    set -l lines (command $program __complete fish -- $words "$word" 2>/dev/null)
    set -l kind $lines[1]
    set -e lines[1]
    switch "$kind"
        case files directories
            # The part before a value, as in --config=FILE.
            set -l flag (string match --regex '^--[a-z-]+=' -- $word)
            set -l path (string replace --regex '^--[a-z-]+=' '' -- $word)
            set -l found
            if test $kind = files
                set found (__fish_complete_path "$path")
            else
                set found (__fish_complete_directories "$path" '')
            end
            for one in $found
                echo -- "$flag$one"
            end
        case 'command*'
            set -l at (contains --index -- -- $words)
            set -l rest $words
            set -e rest[1..$at]
            set -l before (string replace --regex '^command ?' '' -- $kind)
            test -n "$before"; and set rest $before $rest
            complete --do-complete (string join ' ' -- (string escape -- $rest) "$word")
        case '*'
            printf '%s\n' $lines
    end
end
complete --command pgiam --no-files --arguments '(__pgiam_complete)'
