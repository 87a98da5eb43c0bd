package cgroup

import (
	"fmt"
	"strconv"
	"strings"
)

// IORate bounds the reads and writes of a whole block device, not of a partition. A rate of 0 is no limit.
type IORate struct {
	Major, Minor        int64
	ReadBPS, WriteBPS   uint64 // bytes a second
	ReadIOPS, WriteIOPS uint64 // operations a second
}

// rates are the limits of r by their names on v2 and v1.
func (r IORate) rates() []ioRate {
	return []ioRate{
		{"rbps", "blkio.throttle.read_bps_device", r.ReadBPS},
		{"wbps", "blkio.throttle.write_bps_device", r.WriteBPS},
		{"riops", "blkio.throttle.read_iops_device", r.ReadIOPS},
		{"wiops", "blkio.throttle.write_iops_device", r.WriteIOPS},
	}
}

type ioRate struct {
	key, file string
	value     uint64
}

// unified is the setting for a v2 group.
func (r IORate) unified() setting {
	var line strings.Builder
	fmt.Fprintf(&line, "%d:%d", r.Major, r.Minor)
	for _, rate := range r.rates() {
		if rate.value > 0 {
			fmt.Fprintf(&line, " %s=%d", rate.key, rate.value)
		}
	}
	return setting{"io.max", line.String(), false}
}

// legacy are the settings for the v1 controller blkio.
func (r IORate) legacy() []setting {
	var s []setting
	for _, rate := range r.rates() {
		if rate.value > 0 {
			value := fmt.Sprintf("%d:%d %s", r.Major, r.Minor, strconv.FormatUint(rate.value, 10))
			s = append(s, setting{rate.file, value, false})
		}
	}
	return s
}
