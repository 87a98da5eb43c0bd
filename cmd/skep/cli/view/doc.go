// Package view shows the objects of the API as Docker's API shows its own: the same JSON keys and template fields.
//
// It converts in one direction only, from proto to plain structs; what people may change is in package servicespec.
// Fields that Docker does not have are Node.Role (the certified role), Task.ServiceName and Info.
//
// Concurrency: all functions are pure; a view shares maps and slices with the message that it was made from, so the
// caller must change neither.
package view
