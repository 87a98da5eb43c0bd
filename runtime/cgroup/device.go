package cgroup

import (
	"strconv"
)

// DeviceRule allows or denies access to devices. In a list the last rule that is about a device decides.
type DeviceRule struct {
	Allow bool
	// Type is 'c', 'b', or 'a' for all devices, whatever the numbers.
	Type byte
	// Major and Minor are numbers, or AnyDevice.
	Major, Minor int64
	// Access is of the letters r, w and m (make a node).
	Access string
}

// AnyDevice stands for every number in a DeviceRule.
const AnyDevice = -1

// deviceRules are the rules, of which there always are some.
func (l Limits) deviceRules() []DeviceRule {
	if l.Devices == nil {
		return StockDevices()
	}
	return l.Devices
}

// StockDevices are the rules for a container that asks for nothing more: it may use what every container has.
func StockDevices() []DeviceRule { return stockDevices("rw") }

// NodeDevices are the rules for a container that makes device nodes itself: it may make any, and open those that every
// container has.
func NodeDevices() []DeviceRule {
	out := []DeviceRule{
		{Allow: true, Type: 'c', Major: AnyDevice, Minor: AnyDevice, Access: "m"},
		{Allow: true, Type: 'b', Major: AnyDevice, Minor: AnyDevice, Access: "m"},
	}
	return append(out, stockDevices("rwm")...)
}

// stockDevices are those that every container has.
func stockDevices(access string) []DeviceRule {
	var out []DeviceRule
	for _, d := range [][2]int64{
		{1, 3},           // null
		{1, 5},           // zero
		{1, 7},           // full
		{1, 8},           // random
		{1, 9},           // urandom
		{5, 0},           // tty
		{5, 2},           // ptmx
		{136, AnyDevice}, // pts
	} {
		out = append(out, DeviceRule{Allow: true, Type: 'c', Major: d[0], Minor: d[1], Access: access})
	}
	return out
}

// legacy gives the setting for the devices controller of v1.
func (r DeviceRule) legacy() setting {
	file := "devices.deny"
	if r.Allow {
		file = "devices.allow"
	}
	if r.Type == 'a' {
		return setting{file: file, value: "a"}
	}
	number := func(n int64) string {
		if n == AnyDevice {
			return "*"
		}
		return strconv.FormatInt(n, 10)
	}
	return setting{file: file, value: string(r.Type) + " " + number(r.Major) + ":" + number(r.Minor) + " " + r.Access}
}
