package spec

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ExecProcess is one more process for a container that has a Plan. What it leaves out is as for the first process.
type ExecProcess struct {
	Args []string
	// Env is added to the container's environment: a variable replaces the one of the same name.
	Env  []string
	Cwd  string      // absolute, or "" for the container's
	User *specs.User // or nil for the container's
}

// Exec gives the plan of one more process. It has at most the rights of the first: root has the capabilities that the
// container may have, another user none of its own. It does not modify p.
func (p *Plan) Exec(e ExecProcess) (*Plan, error) {
	c := &compiler{plan: *p}
	out := &c.plan.Process
	out.Args, out.Programs = nil, nil
	c.arguments(&specs.Process{Args: e.Args, Env: mergeEnv(out.Env, e.Env)})
	if e.Cwd != "" {
		out.Cwd = c.inside("cwd", e.Cwd)
	}
	if e.User != nil {
		umask := out.Umask
		out.Groups = nil
		c.user(e.User)
		out.Umask = umask
		out.Capabilities = Capabilities{Bounding: out.Capabilities.Bounding}
		if e.User.UID == 0 {
			out.Capabilities.Permitted, out.Capabilities.Effective = out.Capabilities.Bounding, out.Capabilities.Bounding
		}
	}
	if len(c.problems) > 0 {
		return nil, fmt.Errorf("%w: %w", ErrSpec, errors.Join(c.problems...))
	}
	return &c.plan, nil
}

// mergeEnv gives the variables of both; more outranks have.
func mergeEnv(have, more []string) []string {
	out := slices.Clone(have)
	for _, e := range more {
		name, _, _ := strings.Cut(e, "=")
		out = slices.DeleteFunc(out, func(h string) bool { return strings.HasPrefix(h, name+"=") })
		out = append(out, e)
	}
	return out
}
