"""Generated from proto/ by `make gen`. DO NOT EDIT!"""
