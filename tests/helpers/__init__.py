"""What tests of several rooms share: drawn data, small runs, stand-ins, rules."""
