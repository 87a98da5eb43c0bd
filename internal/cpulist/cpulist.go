// Package cpulist reads lists of processors as the kernel writes them, such as "0-3,6" (cpuset(7), List format).
package cpulist

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// List is what a list names: ranges in ascending order that neither overlap nor touch. A range takes as much room as a number, so
// that a list from far away costs what its text does.
type List []Range

// Range is the processors from First to Last, with both.
type Range struct{ First, Last uint32 }

// most is more than any kernel can have.
const most = 99_999

// Parse reads a list: numbers up to 99999 and ranges of them, with commas between, in any order.
func Parse(text string) (List, error) {
	var ranges List
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := number(first)
		if err != nil {
			return nil, err
		}
		to, err := number(last)
		if err != nil {
			return nil, err
		}
		if from > to {
			return nil, fmt.Errorf("the range %s ends before it begins", part)
		}
		ranges = append(ranges, Range{from, to})
	}
	slices.SortFunc(ranges, func(a, b Range) int { return cmp.Compare(a.First, b.First) })
	merged := ranges[:1]
	for _, r := range ranges[1:] {
		if end := &merged[len(merged)-1].Last; r.First <= *end+1 {
			*end = max(*end, r.Last)
			continue
		}
		merged = append(merged, r)
	}
	return merged, nil
}

func number(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n > most {
		return 0, fmt.Errorf("%q is no processor's number", text)
	}
	return uint32(n), nil
}

// Online returns the list of the processors that this machine can use now.
func Online() (string, error) {
	list, err := os.ReadFile("/sys/devices/system/cpu/online")
	return strings.TrimSpace(string(list)), err
}

// Has reports whether a list has all processors of another one.
func (l List) Has(other List) bool {
	return !slices.ContainsFunc(other, func(want Range) bool {
		return !slices.ContainsFunc(l, func(have Range) bool { return have.First <= want.First && want.Last <= have.Last })
	})
}
