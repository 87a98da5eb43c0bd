package servicespec

import (
	"maps"
	"slices"

	"github.com/spf13/pflag"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
)

// processFlags are the flags about the process and its kernel parameters that create and update both have.
type processFlags struct {
	init, tty   bool
	oomScoreAdj int64
	shmSize     flagvalue.Bytes
	storageSize flagvalue.Bytes
}

func (f *processFlags) register(set *pflag.FlagSet) {
	set.BoolVar(&f.init, "init", false, "Use an init inside each service container to forward signals and reap processes")
	set.Int64Var(&f.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-998 to 1000)")
	set.Var(&f.shmSize, "shm-size", "Size of /dev/shm (default 64m)")
	set.Var(&f.storageSize, "storage-size", "Limit what a container writes in its root filesystem (default 0 = unlimited)")
	set.BoolVarP(&f.tty, "tty", "t", false, "Allocate a pseudo-TTY")
}

// apply changes what a given flag names (I1).
func (f *processFlags) apply(changed func(...string) bool, c *api.ContainerSpec) {
	if changed("init") {
		c.Init = f.init
	}
	if changed("tty") {
		c.Tty = f.tty
	}
	if changed("oom-score-adj") {
		c.OomScoreAdj = f.oomScoreAdj
	}
	if changed("storage-size") {
		c.StorageSizeBytes = int64(f.storageSize)
	}
	if changed("shm-size") {
		c.ShmSizeBytes = int64(f.shmSize)
	}
}

// lists are what create sets and update adds to.
type lists struct {
	groups  flagvalue.List
	sysctls flagvalue.Labels
	ulimits flagvalue.Ulimits
	names   nameLists
}

// removals are what update takes away: groups, and sysctls and ulimits by their names.
type removals struct {
	groups, sysctls, ulimits flagvalue.List
	names                    nameRemovals
}

func (l *lists) registerCreate(set *pflag.FlagSet) {
	set.Var(&l.groups, "group", "Set one or more supplementary user groups for the container")
	set.Var(&l.groups, "group-add", "The same as --group")
	set.Var(&l.sysctls, "sysctl", "Sysctl options")
	set.Var(&l.ulimits, "ulimit", "Ulimit options")
	l.names.registerCreate(set)
}

func (l *lists) registerUpdate(set *pflag.FlagSet, r *removals) {
	set.Var(&l.groups, "group-add", "Add an additional supplementary user group to the container")
	set.Var(&r.groups, "group-rm", "Remove a previously added supplementary user group from the container")
	set.Var(&l.sysctls, "sysctl-add", "Add or update a Sysctl option")
	set.Var(&r.sysctls, "sysctl-rm", "Remove a Sysctl option")
	set.Var(&l.ulimits, "ulimit-add", "Add or update a ulimit option")
	set.Var(&r.ulimits, "ulimit-rm", "Remove a ulimit option")
	l.names.registerUpdate(set, &r.names)
}

// apply removes and then adds. The container's lists must be its own.
func (l *lists) apply(c *api.ContainerSpec, r removals) {
	c.Groups = mergeTexts(c.Groups, l.groups, r.groups)
	c.Sysctls = changeLabels(c.Sysctls, l.sysctls, r.sysctls)
	c.Ulimits = slices.DeleteFunc(c.Ulimits, func(u *api.Ulimit) bool { return slices.Contains(r.ulimits, u.GetName()) })
	c.Ulimits = merge(c.Ulimits, l.ulimits, (*api.Ulimit).GetName)
	l.names.apply(c, r.names)
}

// check returns an error when one thing is both added and removed.
func (l *lists) check(r removals) error {
	for _, err := range append(l.names.checks(r.names),
		disjoint("group", l.groups, r.groups),
		disjoint("sysctl", slices.Sorted(maps.Keys(l.sysctls)), r.sysctls),
		disjoint("ulimit", keysOf(l.ulimits, (*api.Ulimit).GetName), r.ulimits),
	) {
		if err != nil {
			return err
		}
	}
	return nil
}

// missing returns a sentence for each thing to remove that the container does not have.
func (r removals) missing(c *api.ContainerSpec) []string {
	return slices.Concat(
		missing("group", c.GetGroups(), r.groups),
		missing("sysctl", slices.Collect(maps.Keys(c.GetSysctls())), r.sysctls),
		missing("ulimit", keysOf(c.GetUlimits(), (*api.Ulimit).GetName), r.ulimits),
		r.names.missing(c),
	)
}
