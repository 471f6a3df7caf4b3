"""The value model as a reward model of LeRobot, registered by importing what is inside."""
