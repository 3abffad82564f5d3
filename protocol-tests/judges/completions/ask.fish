# What fish offers at the end of command lines: fish --no-config ask.fish SCRIPT < LINES
# Prints each line behind "> ", and what is offered below it, without descriptions.
source $argv[1]
while read -l line
    echo "> $line"
    complete -C "$line" | string split -f 1 \t
end
