import type { Context } from './context.js';

export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

/** Prints the script that teaches a shell tunward's words. It asks `tunward __complete` for them, and evaluates none. */
export async function completion(shell: Shell, { screen }: Context): Promise<number> {
  const script = scripts[shell];
  if (screen.json) screen.data({ shell, script });
  else screen.write(script);
  return 0;
}

/** Where each belongs, for the help. */
export const places: Readonly<Record<Shell, string>> = {
  bash: 'tunward completion bash > ~/.local/share/bash-completion/completions/tunward',
  zsh: 'tunward completion zsh > ~/.zfunc/_tunward      # a folder of $fpath, before compinit',
  fish: 'tunward completion fish > ~/.config/fish/completions/tunward.fish',
};

const scripts: Readonly<Record<Shell, string>> = {
  bash: `# tunward's completion for bash: ${places.bash}
# or in ~/.bashrc: source <(tunward completion bash)
_tunward() {
  local answer
  COMPREPLY=()
  mapfile -t answer < <(tunward __complete --line="\${COMP_LINE:0:COMP_POINT}" --breaks="$COMP_WORDBREAKS" 2>/dev/null)
  if [ "\${answer[0]-}" = files ]; then
    compopt -o default 2>/dev/null
  else
    COMPREPLY=("\${answer[@]:1}")
  fi
}
complete -F _tunward tunward
`,
  zsh: `#compdef tunward
# tunward's completion for zsh: ${places.zsh}
# or in ~/.zshrc, after compinit: source <(tunward completion zsh)
_tunward() {
  local -a answer values shown
  local line
  answer=("\${(@f)$(tunward __complete -- "\${(@Q)words[2,CURRENT-1]}" "\${(Q)PREFIX}" 2>/dev/null)}")
  if [[ "\${answer[1]}" == files ]]; then
    _files
    return
  fi
  for line in "\${(@)answer[2,-1]}"; do
    values+=("\${line%%$'\\t'*}")
    shown+=("\${line%%$'\\t'*}  \${line#*$'\\t'}")
  done
  compadd -l -d shown -a values
}
if [[ "\${funcstack[1]}" == _tunward ]]; then
  _tunward "$@"
else
  compdef _tunward tunward
fi
`,
  fish: `# tunward's completion for fish: ${places.fish}
function __tunward_complete
    set -l words (commandline -opc)
    set -l last (commandline -ct | string unescape)
    set -l answer (tunward __complete -- $words[2..-1] "$last" 2>/dev/null)
    if test "$answer[1]" = files
        __fish_complete_path (commandline -ct)
    else
        printf '%s\\n' $answer[2..-1]
    end
end
complete -c tunward -f -a '(__tunward_complete)'
`,
};
