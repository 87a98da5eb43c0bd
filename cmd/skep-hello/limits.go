package main

import (
	"math"
	"strconv"
	"strings"
)

// limits returns the limits of this process's cgroups, each "" when it cannot
// be seen: a container may have no cgroup file system mounted.
func (m machine) limits() (memory, cpu, pids string) {
	dirs := m.cgroups()
	memory = limit(firstOf(m, dirs[""], "memory.max", dirs["memory"], "memory.limit_in_bytes"))
	pids = limit(firstOf(m, dirs[""], "pids.max", dirs["pids"], "pids.max"))
	if words := strings.Fields(m.readIn(dirs[""], "cpu.max")); len(words) == 2 {
		return memory, cpus(words[0], words[1]), pids
	}
	quota, period := m.readIn(dirs["cpu"], "cpu.cfs_quota_us"), m.readIn(dirs["cpu"], "cpu.cfs_period_us")
	return memory, cpus(quota, period), pids
}

// firstOf returns the file of cgroup version 2, or else the one of version 1.
func firstOf(m machine, dir2, name2, dir1, name1 string) string {
	if value := m.readIn(dir2, name2); value != "" {
		return value
	}
	return m.readIn(dir1, name1)
}

func (m machine) readIn(dir, name string) string {
	if dir == "" {
		return ""
	}
	return m.read(dir + "/" + name)
}

// cgroups returns the directory of each controller of this process, and of
// version 2 under "". With a cgroup namespace, and the usual mounts, that is
// the top of each mount; without one the path in /proc/self/cgroup counts.
func (m machine) cgroups() map[string]string {
	dirs := map[string]string{}
	for l := range strings.Lines(m.read("proc/self/cgroup")) {
		parts := strings.SplitN(strings.TrimSpace(l), ":", 3)
		if len(parts) != 3 {
			continue
		}
		mount := "/sys/fs/cgroup"
		if parts[1] != "" {
			mount += "/" + parts[1]
		}
		for controller := range strings.SplitSeq(parts[1], ",") {
			dir := strings.TrimSuffix(mount+parts[2], "/")
			if m.read(dir+"/cgroup.procs") == "" && m.read(dir+"/tasks") == "" { // another view of the same group
				dir = mount
			}
			dirs[controller] = dir
		}
	}
	return dirs
}

// limit words "no limit" alike for both versions.
func limit(value string) string {
	n, err := strconv.ParseUint(value, 10, 64)
	if value == "max" || err == nil && n > math.MaxInt64-1<<16 { // version 1: the largest multiple of a page
		return "none"
	}
	return value
}

// cpus returns a quota and its period in microseconds as a number of CPUs.
func cpus(quota, period string) string {
	if quota == "max" || quota == "-1" {
		return "none"
	}
	q, err := strconv.ParseFloat(quota, 64)
	if err != nil {
		return ""
	}
	p, err := strconv.ParseFloat(period, 64)
	if err != nil || p <= 0 {
		return ""
	}
	return strconv.FormatFloat(q/p, 'g', 4, 64)
}
