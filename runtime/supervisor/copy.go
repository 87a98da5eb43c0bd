package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/launch"
	"github.com/skep-io/skep/runtime/protocol"
	"github.com/skep-io/skep/runtime/spec"
)

// copierScore has the kernel choose a copying process before others when memory runs out, and long before the supervisor.
const copierScore = 500

// copierCapabilities are what root needs to read and write the files of others, and to give them away. It can make no devices.
const copierCapabilities = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID

// copy starts a process that copies files from a container or to it, and gives the client's descriptors (I9).
func (v *server) copy(ctx context.Context, call protocol.Call) (*container, *launch.Process, []*os.File, error) {
	if call.Copy == nil || call.Copy.Path == "" || len(call.Copy.Path) > protocol.MaxPath || strings.ContainsRune(call.Copy.Path, 0) {
		return nil, nil, nil, fmt.Errorf("%w: copy without a usable path", protocol.ErrInvalid)
	}
	c, err := v.find(call.ID)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := c.executable(); err != nil {
		return nil, nil, nil, err
	}
	own, err := loadExecPlan(c.dir)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("copy files of container %s: %w", c.id, err)
	}
	plan, err := copierPlan(own, call.Copy)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := c.execs.reserve(c.id); err != nil {
		return nil, nil, nil, err
	}
	p, files, err := v.spawnCopier(ctx, c, plan, !call.Copy.From)
	if err == nil {
		c.execs.keep(p, true)
		return c, p, files, nil
	}
	c.execs.release(nil)
	if errors.Is(err, os.ErrProcessDone) {
		return nil, nil, nil, fmt.Errorf("%w: container %s is not running", protocol.ErrState, c.id)
	}
	return nil, nil, nil, fmt.Errorf("copy files of container %s: %w: %w", c.id, protocol.ErrStart, err)
}

// copierPlan is what a process that copies is given: the ids and the namespaces of the container, and of its rights few. Where the
// container has the node's ids it has none that the container has not.
func copierPlan(own *spec.Plan, request *protocol.Copy) (*spec.Plan, error) {
	text, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", protocol.ErrInvalid, err)
	}
	rights := uint64(copierCapabilities)
	if !own.UserNS() {
		rights &= own.Process.Capabilities.Bounding
	}
	return &spec.Plan{
		Namespaces: own.Namespaces, UIDs: own.UIDs, GIDs: own.GIDs, OOMScoreAdj: max(own.OOMScoreAdj, copierScore),
		Process: spec.Process{
			Args: []string{"skep-runtime", "copy", string(text)},
			// Neither looks at files that the container could have made, as Go's runtime does to find its limits.
			Env: []string{"GODEBUG=containermaxprocs=0,updatemaxprocs=0", "GOMAXPROCS=1", "GOMEMLIMIT=32MiB"},
			Cwd: ".", NoNewPrivs: true, Capabilities: spec.Capabilities{Bounding: rights, Permitted: rights, Effective: rights},
			Rlimits: []spec.Rlimit{{Resource: unix.RLIMIT_CORE}},
		},
	}, nil
}

func (v *server) spawnCopier(ctx context.Context, c *container, plan *spec.Plan, stdin bool) (*launch.Process, []*os.File, error) {
	path := v.cfg.Copier
	if path == "" {
		path = "/proc/self/exe" // which is sealed
	}
	program, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer program.Close()
	d, err := v.descriptors(c, plan, &protocol.Exec{Stdin: stdin})
	if err != nil {
		return nil, nil, err
	}
	defer closeAll(d.close)
	v.launches <- struct{}{}
	// In no group of the container's: it works for another, also while the container is paused or at its limits.
	p, err := v.launcher.Exec(ctx, c.process, launch.ExecJob{Plan: plan, Stdio: d.stdio, Program: program})
	<-v.launches
	if err != nil {
		closeAll(d.client)
		return nil, nil, err
	}
	return p, d.client, nil
}
